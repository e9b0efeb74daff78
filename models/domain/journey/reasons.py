"""Why: reason codes as clauses that can follow a colon. Pure; total: an unknown code is spelled out."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from models.domain.journey.happening import THIS_TOPIC, Happening, moment


def reason_words(happening: Happening) -> str | None:
    """Why, as a clause that can follow a colon; None when no reason is recorded."""
    code = happening.reason
    if code is None:
        return None
    if is_known(code):
        return _CLAUSES[code] if code in _CLAUSES else _TOLD[code](happening)
    if answered := _ANSWERED.fullmatch(code):
        return f"the mail server answered {answered['code']} {_PHASES[answered['phase']]}; it was certainly not sent"
    if unclear := _UNCLEAR.fullmatch(code):
        return f"it may or may not have been sent: the mail server answered {unclear['code']}; it is never sent again by itself"
    name, _, rest = code.partition(":")
    if heard := _HEARD.fullmatch(code):
        return f"the other system answered {heard['status']}"
    if code.startswith("gave_up:webhook_"):
        name, rest = "gave_up:webhook", rest.removeprefix("webhook_").replace("_", " ")
    if name == "missing_value" and rest.startswith("run."):
        name = "missing_value:run"
    if name in _WITH_DETAIL and rest:
        return _WITH_DETAIL[name].format(rest)
    return f"{name.replace('_', ' ')} ({rest})" if rest else name.replace("_", " ")


def is_known(code: str) -> bool:
    return code in _CLAUSES or code in _TOLD


def topic(happening: Happening) -> str:
    return happening.names.topic(happening.inputs.get("topic_id") or happening.details.get("topic_id"))


def _topic_archived(happening: Happening) -> str:
    name = topic(happening)
    return f"{name} is archived" if name == THIS_TOPIC else f"the topic {name} is archived"


def _withdrawn(happening: Happening) -> str:
    at = consent_time(happening)
    return f"the contact withdrew consent for {topic(happening)}{f' on {at}' if at else ''}"


def consent_time(happening: Happening) -> str | None:
    consent = happening.inputs.get("consent")
    if not isinstance(consent, Mapping):
        return None
    try:
        return moment(datetime.fromisoformat(str(consent.get("occurred_at"))))
    except ValueError:
        return None


def _no_address(happening: Happening) -> str:
    return f"the contact has no {'phone number' if happening.inputs.get('channel') == 'sms' else 'email address'}"


def _quiet_hours(happening: Happening) -> str:
    window = happening.inputs.get("window")
    if not isinstance(window, Mapping):
        return "quiet hours"
    return f"quiet hours {window.get('start')}-{window.get('end')}{_whose_zone(happening)}"


def _whose_zone(happening: Happening) -> str:
    used, contact_zone = happening.inputs.get("zone_of"), happening.inputs.get("contact_zone")
    if used not in ("organization", "utc"):
        return ""
    why = "has no valid time zone" if contact_zone == "invalid" else "has no time zone"
    return f" (by {'the organization' if used == 'organization' else 'UTC'}, as the contact {why})"


_CLAUSES = {
    # our own decisions and the last check before a send
    "suppressed": "the address is on the suppression list, which outranks consent",
    "contact_gone": "the contact no longer exists",
    "no_topic": "the message's topic does not exist",
    "organization_suspended": "the organization is suspended",
    "always_quiet": "the organization's quiet hours cover the whole day",
    "hold": "a check holds it back",
    "refuse": "a check refuses it",
    "changed": "something about it changed at the last moment; everything is asked again",
    "contact_changed": "the contact changed at the last moment; everything is asked again",
    "connection_changed": "its connection was changed while it waited to be sent; everything is asked again",
    "run_paused": "the run is paused",
    "run_left": "the run was ended by a rule of the journey, by its replay, or by a resumption without it",
    "replayed": "another run goes on in its place",
    "replayed_already": "another run goes on in its place already",
    "not_over": "it is under way, and neither needs attention nor has finished",
    "nothing_to_resend": "nothing was done there that could be done again",
    "being_sent": "the run that this one replays is just handing it over",
    "journey_archived": "the journey is archived",
    "journey_unpublished": "that journey has no published version",
    "too_many_this_hour": "the journey takes only so many in an hour; the contact enters later",
    "run_ended": "the run ended before it was handed over",
    "run_cancelled": "the run is being cancelled",
    "step_cancelled": "somebody had cancelled this step beforehand",
    "overdue": "the journey was resumed without what was overdue for too long",
    "no_longer_fits": "the journey was resumed, and the contact does not fit its entry rules any more",
    # why an operation on many runs did nothing to one
    "wrong_phase": "the command makes no sense for a run in its phase",
    "unknown_step": "its version of the journey has no such step",
    "unknown_resend": "its version of the journey has no step of a name that was to be done again",
    "already": "it was so already",
    "variables_too_large": "it would have too many variables, or too large ones",
    "moved_on": "it had left the step that was meant",
    "finished": "it was over already",
    "no_workflow": "its workflow did not answer, or it has none",
    "operation_cancelled": "the operation was cancelled before it was told",
    "paused_again": "it was paused once more after the operation had begun; resume it anew",
    "paused_with_campaign": "it is paused together with its campaign; resume that",
    "paused_with_journey": "it is paused together with its journey; resume that",
    "paused": "the campaign, journey or run was paused",
    "campaign_paused": "the campaign is paused",
    "journey_paused": "the journey is paused",
    "too_many_failures": "too many of its messages failed for good, and somebody must look before it goes on",
    "first_failure": "a run failed for good, and the campaign was to pause at the first failure",
    "campaign_cancelled": "the campaign was cancelled",
    "journey_cancelled": "the journey was cancelled",
    "workflow_cancelled": "the workflow that carried it was cancelled",
    "paused_before": "the run in whose place it goes on had been paused by itself",
    "workflow_lost": "the workflow that carried it is gone; it goes on only when somebody replays it",
    "version_replaced": "another version of the journey was published, and its plan said so",
    "exit_step": "the journey ends here for this contact",
    # of entries, waits and ends
    "no_trigger": "no trigger of the journey fits the event",
    "trigger_gone": "the journey's newest version has no trigger that fits",
    "entered_before": "the contact has entered this journey before",
    "under_way": "the contact is under way in this journey already",
    "cooling_down": "the contact entered this journey a short while ago, and its cool-down is not over",
    "maximum_reached": "the contact has entered this journey as often as it allows",
    "key_too_long": "the key that tells the contact's runs apart has more than 200 characters",
    "entered_too_often": "journeys or segments have led the contact into this journey ten times within an hour already",
    "starts_later": "the campaign starts then",
    "no_date": "the contact has no such date",
    "date_passed": "the date has passed already",
    "journey_ended": "the journey has ended",
    "loop_limit": "it came to the same step too often",
    # outcomes without a closer reason
    "throttled": "the provider asked us to slow down",
    "transient": "the provider could not take it just now; it was certainly not sent",
    "gave_up": "it could not be sent after many tries; it was certainly not sent",
    "rate_limited": "the connection has sent as much as it may for now",
    "worker_going_away": "the worker stopped before it was sent",
    "database_unavailable": "the database did not answer; it was certainly not sent",
    "connection_broken": "the connection needs to be mended; messages wait until it works again",
    "recipient_permanent": "the provider says that this address cannot receive messages",
    "content_permanent": "the provider will not take this content",
    "opted_out": "the provider says that the recipient opted out",
    "unknown": "it may or may not have been sent: the answer was lost, and it is never sent again by itself",
    "attempt_lost": "it may or may not have been sent: the worker stopped while handing it over, and it is never sent again by itself",
    "connection_lost_after_data": "it may or may not have been sent: the mail server was lost before its answer; it is never sent again",
    # what a mail server says of a recipient
    "mailbox_unknown": "there is no such mailbox",
    "mailbox_disabled": "the mailbox is switched off",
    "mailbox_full": "the mailbox is full",
    "mailbox_moved": "the mailbox has moved away",
    "domain_unknown": "the address's domain does not exist",
    "domain_refuses_mail": "the address's domain takes no mail",
    "no_route": "mail cannot be carried to the address's domain",
    "address_invalid": "the address is malformed",
    "address_needs_smtputf8": "the address has letters outside ASCII before its @, and no connection can write to such addresses yet",
    "address_refused": "the mail server refuses this address",
    "recipient_refused": "the mail server refuses this recipient",
    # of a message
    "too_large": "the message is larger than the mail server takes",
    "policy_refused": "the mail server refused it by its policy: reputation, authentication or content",
    "content_refused": "the mail server will not take this content",
    "malformed": "the mail server calls the message malformed",
    "header_line_break": "its subject, or the name of its sender, holds a line break",
    "header_not_unicode": "its subject, or the name of its sender, holds half a character",
    "body_empty": "it says nothing",
    "body_holds_boundary": "its text holds the mark that divides its parts",
    "body_not_unicode": "its text holds half a character",
    "unsubscribe_missing": "marketing mail needs a way to leave, and it has none",
    "no_template": "its template is missing",
    "unsupported_channel": "nothing can send on this channel yet",
    # of the connection
    "no_connection": "there is no connection to send it by",
    "broken": "the connection needs to be mended",
    "refused": "the connection was refused",
    "secret_unreadable": "the connection's password cannot be read with this installation's key; enter it again",
    "address_not_allowed": "the connection's host leads into a private network, which the installation does not allow",
    "sender_refused": "the mail server does not let this connection send from its address",
    "auth_refused": "the mail server refused the connection's login",
    "authentication_failed": "the mail server refused the connection's login",
    "authentication_not_offered": "the mail server offers no login",
    "starttls_not_offered": "the mail server offers no encryption",
    "certificate_invalid": "the mail server's certificate is not valid",
    "tls_refused": "the mail server refused encryption",
    "tls_failed": "no encrypted connection to the mail server could be made",
    "connect_timeout": "the mail server did not answer in time",
    "unreachable": "the mail server could not be reached",
    "connection_lost": "the mail server was lost before it had the message; it was certainly not sent",
    "no_answer": "the mail server did not answer",
    # of steps that do something
    "blocked_destination": "the address leads into a private network, where nothing is called",
    "webhook_timeout": "the other system did not answer in time",
    "webhook_unreachable": "the other system could not be reached",
    "webhook_connection_lost": "the other system broke off before its answer was complete",
    "webhook_certificate_invalid": "the other system's certificate is not valid for its name",
    "body_too_large": "what would be said is too large",
    "too_many_tags": "the contact would have too many tags",
    "no_members": "none of those who were to be told is a member any more",
}
_TOLD: Mapping[str, Callable[[Happening], str]] = {
    "no_address": _no_address,
    "topic_archived": _topic_archived,
    "no_consent": lambda happening: f"the contact never agreed to {topic(happening)} by {happening.inputs.get('channel', 'this channel')}",
    "consent_withdrawn": _withdrawn,
    "quiet_hours": _quiet_hours,
}
_WITH_DETAIL = {
    "exit_rule": "the journey's exit rule {} applied",
    "goal": "the goal {} was reached",
    "provider_raised": "our own part of the provider failed ({})",
    "step_failed": "the step failed ({})",
    "missing_value": "the template prints {}, which this contact does not have",
    "missing_value:run": "the template prints {}, a variable that this run does not have",
    "rendering_failed": "the template's {} could not be rendered",
    "gave_up": "it could not be sent after many tries ({}); it was certainly not sent",
    "gave_up:webhook": "the other system could not be told after many tries ({}); it may have heard one of them",
    "wrong_type": "the value for {} is not of the attribute's type",
    "too_long": "the value for {} is longer than an attribute's text may be",
    "not_storable": "the value for {} holds characters that cannot be stored",
    "unknown_attribute": "the organization has no attribute {} any more",
    "no_variable": "the run has no value {}",
}
_ANSWERED = re.compile(r"(?P<phase>connect|tls|auth|mail|rcpt|data|body)(_unexpected)?_(?P<code>[0-9]{3})")
_HEARD = re.compile(r"webhook_answered_(?P<status>[0-9]{3})")
_UNCLEAR = re.compile(r"answer_(?P<code>[0-9]{3})")
_PHASES = {
    "connect": "when we connected",
    "tls": "when we asked for encryption",
    "auth": "to our login",
    "mail": "to our sender",
    "rcpt": "to this recipient",
    "data": "when we offered the message",
    "body": "to the message",
}
