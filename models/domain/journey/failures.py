"""Why runs need attention, in classes that tell who can do something about it, and the fingerprint that groups what has one cause.
Pure; total: an unknown reason is of the class `other`."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from models.domain.connection import BROKEN_REASONS


class FailureClass(StrEnum):
    """A small closed set: a new one is a new answer to the question who has to act."""

    PROVIDER_OUTAGE = "provider_outage"
    OTHER_SYSTEM = "other_system"
    CONTENT = "content"
    DATA = "data"
    CONFIGURATION = "configuration"
    UNCERTAIN_OUTCOME = "uncertain_outcome"
    PROGRAMMING = "programming"
    WORKFLOW_LOST = "workflow_lost"
    OTHER = "other"


MEANINGS = {
    FailureClass.PROVIDER_OUTAGE: "The provider could not be reached, or would not take it just then, however often it was tried.",
    FailureClass.OTHER_SYSTEM: "The system that a step calls did not answer, or refused the call.",
    FailureClass.CONTENT: "The provider, or our own composer, will never take this content.",
    FailureClass.DATA: "A contact lacks, or has wrongly, what the step needs.",
    FailureClass.CONFIGURATION: "Something that the journey needs is missing or not set up for it.",
    FailureClass.UNCERTAIN_OUTCOME: "It may have left and it may not: the answer was lost.",
    FailureClass.PROGRAMMING: "Our own software failed.",
    FailureClass.WORKFLOW_LOST: "What carried the run was ended from outside, or its history is lost; the record is intact.",
    FailureClass.OTHER: "A reason that this release does not know.",
}
ADVICE = {
    FailureClass.PROVIDER_OUTAGE: "When the provider works again (POST /v1/connections/{id}/checks), retry: nothing was sent yet.",
    FailureClass.OTHER_SYSTEM: "Ask whoever runs the other system. Then retry, which calls it again under the same webhook-id, or skip.",
    FailureClass.CONTENT: "Mend the template and publish; move the runs to the new version and retry them, or skip the step.",
    FailureClass.DATA: "Complete the contacts (where `run.…` is missing, the runs' variables), or give the template a default and publish; "
    "then retry.",
    FailureClass.CONFIGURATION: "An admin or the designer sets up what is missing; then retry.",
    FailureClass.UNCERTAIN_OUTCOME: "Ask the recipient or the provider whether it came. It is never sent again by itself: skip it if it "
    "came, replay it with `resend` if it did not. Retrying does not send it again.",
    FailureClass.PROGRAMMING: "Retry once. If it fails again, report it with the fingerprint; the run keeps its place.",
    FailureClass.WORKFLOW_LOST: "Replay it from where it stood, or cancel it; the finding (GET /v1/findings) says what became of the rest.",
    FailureClass.OTHER: "Read the timeline of the sample run; then retry or skip.",
}

_CLASSES = {
    FailureClass.UNCERTAIN_OUTCOME: frozenset({"unknown", "attempt_lost", "connection_lost_after_data", "provider_raised"}),
    FailureClass.CONTENT: frozenset(
        {
            *("content_permanent", "policy_refused", "content_refused", "too_large", "malformed", "header_line_break"),
            *("header_not_unicode", "body_empty", "body_holds_boundary", "body_not_unicode", "body_too_large", "unsubscribe_missing"),
            "rendering_failed",
        }
    ),
    FailureClass.DATA: frozenset(
        {
            *("missing_value", "no_address", "contact_gone", "wrong_type", "too_long", "not_storable", "no_variable", "too_many_tags"),
            *("address_invalid", "address_refused", "address_needs_smtputf8", "recipient_permanent", "recipient_refused", "opted_out"),
            *("mailbox_unknown", "mailbox_disabled", "mailbox_full", "mailbox_moved", "domain_unknown", "domain_refuses_mail", "no_route"),
        }
    ),
    FailureClass.CONFIGURATION: BROKEN_REASONS
    | {"no_template", "no_topic", "unsupported_channel", "blocked_destination", "malformed_request", "no_members", "unknown_attribute"},
    FailureClass.WORKFLOW_LOST: frozenset({"workflow_lost"}),
    FailureClass.PROVIDER_OUTAGE: frozenset({"gave_up", "throttled", "transient", "database_unavailable"}),
}
_BY_NAME = {name: each for each, names in _CLASSES.items() for name in names}
_MISSING = ("NotFound", "Invalid", "UnknownProvider")  # what a step names is not there
_UNCLEAR = re.compile(r"answer_\d{3}")
_CODE = re.compile(r"_([1-5]\d\d)$")


@dataclass(frozen=True)
class Failure:
    """Why a run needs attention. The same cause has the same `fingerprint`, in every version of the journey; it holds nothing of the
    contact's."""

    failure_class: FailureClass
    reason: str
    provider_code: str | None
    fingerprint: str


def failure(journey_id: UUID, step_id: str | None, reason: str | None) -> Failure:
    """Of a run of this journey that parked at this step for this reason (a code)."""
    code = (reason or "unknown")[:200]
    kind = classify(code)
    answered = provider_code(code)
    parts = (str(journey_id), step_id or "", kind, code, answered or "")
    fingerprint = hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:32]
    return Failure(kind, code, answered, fingerprint)


def classify(reason: str) -> FailureClass:
    """The class of this reason code."""
    name, _, rest = reason.partition(":")
    if name == "step_failed":
        return FailureClass.CONFIGURATION if rest in _MISSING else FailureClass.PROGRAMMING
    if reason.startswith(("gave_up:webhook_", "webhook_")):
        return FailureClass.OTHER_SYSTEM
    if reason.startswith("gave_up:provider_raised"):
        return FailureClass.PROGRAMMING
    return FailureClass.UNCERTAIN_OUTCOME if _UNCLEAR.fullmatch(reason) else _BY_NAME.get(name, FailureClass.OTHER)


def provider_code(reason: str) -> str | None:
    """What the provider or the other system answered, such as 554; None: the reason holds no such code."""
    found = _CODE.search(reason)
    return found[1] if found else None
