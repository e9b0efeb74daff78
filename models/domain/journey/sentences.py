"""What happened to a run, in plain English. Pure; total: an unknown kind or reason still gives a sentence."""

from collections.abc import Callable, Mapping

from models.domain.journey.happening import Happening, moment
from models.domain.journey.reasons import consent_time, is_known, reason_words, topic


def sentence(happening: Happening) -> str:
    """One sentence, beginning with a capital and without a full stop."""
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
    return f"Moved to another version of the journey{_at_step(happening)}"


def _step_entered(happening: Happening) -> str:
    again = f" for the {_ordinal(happening.visit)} time" if (happening.visit or 1) > 1 else ""
    return f"Came to {happening.names.step(happening.step_id)}{again}"


def _ordinal(number: int | None) -> str:
    number = number or 1
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _sent(happening: Happening) -> str:
    return f"Sent {happening.names.step(happening.step_id)}: the provider accepted the message"


def _not_sent(happening: Happening) -> str:
    return f"Not sent{_because(happening)}"


def _waiting(happening: Happening) -> str:
    return f"Waits until {moment(happening.until)}{_at_step(happening)}" if happening.until else f"Waits{_at_step(happening)}"


def _held(happening: Happening) -> str:
    zone = happening.inputs.get("zone") if happening.reason == "quiet_hours" else None
    until = f" until {moment(happening.until, zone)}" if happening.until else ""
    return f"Held{until}{_because(happening)}"


def _woke(happening: Happening) -> str:
    return f"The wait is over{_at_step(happening)}"


def _chose(happening: Happening) -> str:
    name, index = happening.details.get("name"), happening.details.get("index")
    if index is None:
        return f"No condition held{_at_step(happening)}: took the way for all others"
    way = f'"{name}"' if name else f"of condition {index + 1}" if isinstance(index, int) else f"of condition {index}"
    return f"Took the way {way}{_at_step(happening)}"


def _parked(happening: Happening) -> str:
    return f"Needs attention{_at_step(happening)}{_because(happening)}"


def _by(verb: str) -> Callable[[Happening], str]:
    """An operator's deed, with who did it and their own words."""

    def tell(happening: Happening) -> str:
        words = reason_words(happening) if is_known(happening.reason or "") else happening.reason
        return f"{verb}{happening.names.actor(happening.details)}{f': {words}' if words else ''}"

    return tell


def _decided(happening: Happening) -> str:
    check = "Quiet hours" if happening.details.get("check") == "quiet_hours" else "Consent"
    outcome = happening.details.get("outcome")
    if outcome == "send":
        return f"{check} checked: may be sent{_why_allowed(happening)}"
    return f"{check} checked: {'must wait' if outcome == 'hold' else 'must not be sent'}{_because(happening)}"


def _why_allowed(happening: Happening) -> str:
    at = consent_time(happening)
    if at is not None and happening.inputs.get("purpose") != "transactional":
        return f", as the contact agreed to {topic(happening)} on {at}"
    return ", as transactional messages need no consent" if happening.inputs.get("purpose") == "transactional" else ""


_STATES = {
    "claimed": "Claimed for sending: nothing has been handed to the provider yet",
    "transmitting": "Being handed to the provider",
    "accepted": "The provider accepted the message",
    "refused": "Not sent",
    "failed": "Could not be sent",
    "unknown": "May or may not have been sent",
}


def _delivered(happening: Happening) -> str:
    state = str(happening.details.get("state"))
    words = _STATES.get(state, f"Delivery {state}")
    return f"{words}{_because(happening)}" if state not in ("claimed", "transmitting", "accepted") else words


_TELLERS: Mapping[str, Callable[[Happening], str]] = {
    "entered": _entered,
    "moved": _moved,
    "step_entered": _step_entered,
    "sent": _sent,
    "not_sent": _not_sent,
    "waiting": _waiting,
    "held": _held,
    "woke": _woke,
    "chose": _chose,
    "parked": _parked,
    "paused": _by("Paused"),
    "resumed": _by("Resumed"),
    "retried": _by("Tried again"),
    "skipped": _by("The step was skipped"),
    "cancelled": _by("Cancelled"),
    "exited": lambda happening: f"Left the journey{_because(happening)}",
    "completed": lambda happening: "Completed the journey",
    "decision": _decided,
    "delivery": _delivered,
}
