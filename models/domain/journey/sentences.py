"""What happened to a run, in plain English. Pure; total: an unknown kind or reason still gives a sentence."""

from collections.abc import Callable, Mapping
from datetime import datetime

from models.domain.journey.happening import Happening, moment
from models.domain.journey.reasons import consent_time, is_known, reason_words, topic


def sentence(happening: Happening) -> str:
    """One sentence, beginning with a capital and without a full stop."""
    if happening.details.get("kept_from") or happening.details.get("kept_at"):
        return _kept(happening)
    tell = _TELLERS.get(happening.kind)
    if tell is not None:
        return tell(happening)
    words = happening.kind.replace("_", " ").strip() or "something happened"
    return f"{words[:1].upper()}{words[1:]}{_at_step(happening)}{_because(happening)}"


def _at_step(happening: Happening) -> str:
    return f" at {happening.names.step(happening.step_id)}" if happening.step_id else ""


def _because(happening: Happening) -> str:
    words = reason_words(happening)
    return f": {words}" if words else ""


def _entered(happening: Happening) -> str:
    return f"Entered the journey{_at_step(happening)}{happening.names.actor(happening.details)}"


def _moved(happening: Happening) -> str:
    version = happening.details.get("version")
    which = "another version" if version is None else f"version {version}"
    return f"Moved to {which} of the journey{_at_step(happening)}{happening.names.actor(happening.details)}"


def _step_entered(happening: Happening) -> str:
    again = f" for the {_ordinal(happening.visit)} time" if (happening.visit or 1) > 1 else ""
    return f"Came to {happening.names.step(happening.step_id)}{again}"


def _ordinal(number: int | None) -> str:
    number = number or 1
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _sent(happening: Happening) -> str:
    return f"Sent {happening.names.step(happening.step_id)}: the provider accepted the message"


def _kept(happening: Happening) -> str:
    """Of a replay: what the run before it has done. Of a run that was moved back: what it has done itself."""
    at, run_id = happening.details.get("kept_at"), happening.details.get("kept_from")
    whose = f" by the run {run_id}" if run_id else ""
    when = f" on {moment(datetime.fromisoformat(str(at)))}" if at else ""
    word = "sent" if happening.kind == "sent" else "done"
    return f"Kept {happening.names.step(happening.step_id)}: {word}{whose}{when}, and not repeated"


def _replays(happening: Happening) -> str:
    version = "the journey's newest version" if happening.details.get("version") == "current" else "the same version"
    again = happening.details.get("resend")
    once_more = f", doing {', '.join(map(happening.names.step, sorted(again)))} once more" if isinstance(again, Mapping) and again else ""
    actor = happening.names.actor(happening.details)
    return (
        f"Goes on in the place of the run {happening.details.get('run_id')}{_at_step(happening)}, on {version}{once_more}"
        f"{actor}{_own_words(happening)}"
    )


def _replayed(happening: Happening) -> str:
    actor = happening.names.actor(happening.details)
    asked = f", asked for{actor}" if actor else ""
    return f"Replayed{_at_step(happening)} by the run {happening.details.get('run_id')}{asked}{_own_words(happening)}"


def _own_words(happening: Happening) -> str:
    return f": {happening.reason}" if happening.reason else ""


def _ahead(happening: Happening) -> str:
    """Of a replay that is only being considered. `until` is when it was done."""
    step, run_id = happening.names.step(happening.step_id), happening.details.get("run_id")
    done = f"by the run {run_id}{f' on {moment(happening.until)}' if happening.until else ''}"
    match happening.details.get("standing"):
        case "kept":
            return f"Keeps {step}: done {done}, and not repeated"
        case "resent":
            return f"Does {step} once more, although it was done, or may have been, {done}"
        case "uncertain":
            return f"Needs attention at {step}, which may have been done {done}{_because(happening)}"
        case "possible":
            return f"Does {step} if it comes that way"
    return f"Does {step}"


def _not_sent(happening: Happening) -> str:
    return f"Not sent{_because(happening)}"


def _waiting(happening: Happening) -> str:
    if happening.reason is not None:
        return f"Waits{_until(happening)}{_because(happening)}"
    return f"Waits{_until(happening)}{_at_step(happening)}"


def _until(happening: Happening) -> str:
    """By the clock that the wait was planned by, which the line names."""
    return f" until {moment(happening.until, happening.details.get('zone'))}" if happening.until else ""


def _rescheduled(happening: Happening) -> str:
    return f"Waits now{_until(happening) or ' for something else'}{_at_step(happening)}"


def _not_waited(happening: Happening) -> str:
    return f"Did not wait{_at_step(happening)}{_because(happening)}"


_ENDING = ("run_left", "run_cancelled")  # it is not held, but over: its workflow has yet to hear of it


def _held(happening: Happening) -> str:
    if happening.reason in _ENDING:
        return f"Not sent{_because(happening)}"
    zone = happening.inputs.get("zone") if happening.reason == "quiet_hours" else None
    until = f" until {moment(happening.until, zone)}" if happening.until else ""
    return f"Held{until}{_because(happening)}"


def _woke(happening: Happening) -> str:
    return f"The wait is over{_at_step(happening)}"


def _chose(happening: Happening) -> str:
    if happening.details.get("index") is None:
        return f"No condition held{_at_step(happening)}: took the way for all others"
    return f"Took the way {_way(happening)}{_at_step(happening)}"


def _way(happening: Happening) -> str:
    name, index = happening.details.get("name"), happening.details.get("condition", happening.details.get("index"))
    return f'"{name}"' if name else f"of condition {index + 1}" if isinstance(index, int) else f"of condition {index}"


def _matched(happening: Happening) -> str:
    """`condition` counts the conditions alone, as the draft does; `index` events and conditions."""
    said = []
    event = happening.details.get("event")
    if happening.details.get("index") is not None and (happening.details.get("name") or not event):
        said.append(f"took the way {_way(happening)}")
    if event:
        said.append(f"by the event {event}" if said else f"the event {event}")
    return f"What it waited for{_at_step(happening)} has happened{': ' if said else ''}{', '.join(said)}"


def _split(happening: Happening) -> str:
    name, index = happening.details.get("name"), happening.details.get("index")
    way = f'way "{name}"' if name else f"way {index + 1}" if isinstance(index, int) else "a way"
    if happening.details.get("holdout"):
        return f"Is held out by the split{_at_step(happening)} ({way})"
    return f"Went {'the ' if name else ''}{way} of the split{_at_step(happening)}"


def _contact_updated(happening: Happening) -> str:
    fields = happening.details.get("fields")
    return f"Changed the contact{_at_step(happening)}{': ' + ', '.join(map(str, fields)) if fields and isinstance(fields, list) else ''}"


def _called_webhook(happening: Happening) -> str:
    status = happening.details.get("status")
    return f"Called the webhook of {happening.names.step(happening.step_id)}{f', which answered {status}' if status else ''}"


_CALLED = ("webhook_", "gave_up:webhook_", "step_failed:")  # the other system may have heard of it


def _not_done(happening: Happening) -> str:
    if (happening.reason or "").startswith(_CALLED):
        return f"The call{_at_step(happening)} was not successful{_because(happening)}"
    return f"Did nothing{_at_step(happening)}{_because(happening)}"


def _review_asked(happening: Happening) -> str:
    until = _until(happening)
    return f"Asked for a review{_at_step(happening)}{',' if until else ''}{until}"


def _goal_reached(happening: Happening) -> str:
    goal = happening.details.get("goal")
    return f"Reached the goal {goal}" if goal else f"Reached a goal{_because(happening)}"


def _parked(happening: Happening) -> str:
    return f"Needs attention{_at_step(happening)}{_because(happening)}"


def _by(verb: str, *, at_step: bool = False) -> Callable[[Happening], str]:
    """Somebody's deed, with who did it and their own words, or the system's with its reason."""

    def tell(happening: Happening) -> str:
        actor = happening.names.actor(happening.details)
        words = happening.reason if actor or not is_known(happening.reason or "") else reason_words(happening)
        if actor and verb in _REMARKS:  # the run's own reason stays what it was
            words = happening.details.get("why")
        return f"{verb}{_with(happening)}{_at_step(happening) if at_step else ''}{actor}{f': {words}' if words else ''}"

    return tell


def _with(happening: Happening) -> str:
    """Of a pause that was not the run's own."""
    whose = happening.details.get("with")
    return f" with the {whose}" if whose in ("journey", "campaign") else ""


_REMARKS = ("Resumed", "Asked to skip the step")


def _about_step(verb: str) -> Callable[[Happening], str]:
    """Somebody's word about another step than the one at which the run stands."""

    def tell(happening: Happening) -> str:
        why = happening.details.get("why") or (happening.reason if happening.kind == "jumped" else None)
        step = happening.names.step(str(happening.details.get("to")))
        return f"{verb} {step}{happening.names.actor(happening.details)}{f': {why}' if why else ''}"

    return tell


def _missed(verb: str, because: str) -> Callable[[Happening], str]:
    """Of a word that was to be obeyed when something had come back, and could not be any more."""

    def tell(happening: Happening) -> str:
        step = happening.names.step(str(happening.details.get("to")))
        return f"Did not {verb} {step}, as was asked{happening.names.actor(happening.details)}: {because}"

    return tell


def _variables_changed(happening: Happening) -> str:
    names, why = happening.details.get("names"), happening.details.get("why")
    which = f" {', '.join(map(str, names))}" if isinstance(names, list) else ""
    return f"Changed the run's variables{which}{happening.names.actor(happening.details)}{f': {why}' if why else ''}"


def _skipped(happening: Happening) -> str:
    if happening.details.get("because") == "failed":  # models.domain.journey.interpreter.pass_over
        return f"Went on without {happening.names.step(happening.step_id)}, which failed{_because(happening)}"
    if happening.reason == "step_cancelled":  # whoever moved the run on is not who cancelled the step
        return f"Passed {happening.names.step(happening.step_id)}, which had been cancelled"
    return _by("Skipped the step", at_step=True)(happening)


def _decided(happening: Happening) -> str:
    check = "Quiet hours" if happening.details.get("check") == "quiet_hours" else "Consent"
    message = f" for {happening.names.step(happening.step_id)}" if happening.step_id else ""
    outcome = happening.details.get("outcome")
    if outcome == "send":
        return f"{check} checked{message}: may be sent{_why_allowed(happening)}"
    return f"{check} checked{message}: {'must wait' if outcome == 'hold' else 'must not be sent'}{_because(happening)}"


def _why_allowed(happening: Happening) -> str:
    at = consent_time(happening)
    if at is not None and happening.inputs.get("purpose") != "transactional":
        return f", as the contact agreed to {topic(happening)} on {at}"
    return ", as transactional messages need no consent" if happening.inputs.get("purpose") == "transactional" else ""


_STATES = {
    "claimed": "Claimed {} for sending: nothing has been handed to the provider yet",
    "transmitting": "Handing {} to the provider",
    "accepted": "The provider accepted {}",
    "refused": "Did not send {}",
    "failed": "Could not send {}",
    "unknown": "May or may not have sent {}",
}


def _delivered(happening: Happening) -> str:
    state = str(happening.details.get("state"))
    words = _STATES.get(state, f"Delivery of {{}} is {state}").format(happening.names.step(happening.step_id))
    return f"{words}{_because(happening)}" if state not in ("claimed", "transmitting", "accepted") else words


_TELLERS: Mapping[str, Callable[[Happening], str]] = {
    "entered": _entered,
    "moved": _moved,
    "step_entered": _step_entered,
    "sent": _sent,
    "replays": _replays,
    "replayed": _replayed,
    "ahead": _ahead,
    "not_sent": _not_sent,
    "started": lambda happening: "Its time to start has come",
    "waiting": _waiting,
    "rescheduled": _rescheduled,
    "not_waited": _not_waited,
    "held": _held,
    "woke": _woke,
    "timed_out": lambda happening: f"Waited in vain{_at_step(happening)}",
    "matched": _matched,
    "chose": _chose,
    "split": _split,
    "contact_updated": _contact_updated,
    "subscribed": lambda happening: f"Subscribed the contact to {topic(happening)}{_at_step(happening)}",
    "unsubscribed": lambda happening: f"Unsubscribed the contact from {topic(happening)}{_at_step(happening)}",
    "called_webhook": _called_webhook,
    "team_notified": lambda happening: f"Told the team{_at_step(happening)}",
    "entered_journey": lambda happening: f"Asked another journey to take the contact in{_at_step(happening)}",
    "not_done": _not_done,
    "review_asked": _review_asked,
    "review_approved": _by("Approved", at_step=True),
    "review_rejected": _by("Rejected", at_step=True),
    "parked": _parked,
    "paused": _by("Paused"),
    "resumed": _by("Resumed"),
    "retried": _by("Tried again"),
    "skipped": _skipped,
    "skip_requested": _by("Asked to skip the step", at_step=True),
    "skip_missed": _missed("skip", "the run had left it by then"),
    "jumped": _about_step("Jumped to"),
    "jump_requested": _about_step("Asked to jump to"),
    "jump_missed": _missed("jump to", "the run was over by then"),
    "step_cancelled": _about_step("Cancelled the step"),
    "step_restored": _about_step("Took back that the step was cancelled:"),
    "variables_changed": _variables_changed,
    "cancel_requested": _by("Asked to cancel"),
    "cancelled": _by("Cancelled"),
    "goal_reached": _goal_reached,
    "exited": lambda happening: f"Left the journey{_because(happening)}",
    "completed": lambda happening: "Completed the journey",
    "decision": _decided,
    "delivery": _delivered,
}
