"""May this message leave? Facts about contact, consent, topic and organization, joined into one decision. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

from models.domain.back_off import doubled
from models.domain.journey.definition import Purpose
from models.domain.quiet_hours import ChosenZone, NeverAllowed, QuietHours, allowed_until, next_allowed
from models.domain.wait_time import shared_instant

RULE_VERSION = "2026-11-26.2"  # raised whenever the same facts may lead to another decision
WHILE_SUSPENDED = (timedelta(minutes=1), timedelta(hours=2))  # how long a message waits before all is asked again: at first, and at most


class Outcome(StrEnum):
    SEND = "send"
    HOLD = "hold"
    REFUSE = "refuse"


class Reason(StrEnum):
    """Why a message is held or must not leave. `EXPLANATIONS` says each in a sentence."""

    CONTACT_GONE = "contact_gone"
    NO_ADDRESS = "no_address"
    SUPPRESSED = "suppressed"
    NO_TOPIC = "no_topic"
    TOPIC_ARCHIVED = "topic_archived"
    NO_CONSENT = "no_consent"
    CONSENT_WITHDRAWN = "consent_withdrawn"
    ORGANIZATION_SUSPENDED = "organization_suspended"
    QUIET_HOURS = "quiet_hours"
    ALWAYS_QUIET = "always_quiet"


EXPLANATIONS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.CONTACT_GONE: "The contact no longer exists.",
        Reason.NO_ADDRESS: "The contact has no address for this channel.",
        Reason.SUPPRESSED: "The address is on the suppression list, which outranks consent.",
        Reason.NO_TOPIC: "A marketing message needs a topic, and this one's does not exist.",
        Reason.TOPIC_ARCHIVED: "The topic is archived: nobody is written to about it any more.",
        Reason.NO_CONSENT: "The contact never agreed to this topic on this channel.",
        Reason.CONSENT_WITHDRAWN: "The contact agreed once and has withdrawn it.",
        Reason.ORGANIZATION_SUSPENDED: "The organization is suspended: nothing leaves it.",
        Reason.QUIET_HOURS: "It is a quiet hour where the contact is; the message waits for its end.",
        Reason.ALWAYS_QUIET: "The organization's quiet hours cover the whole day: no hour is ever permitted.",
    }
)


@dataclass(frozen=True)
class ConsentLine:
    """The line of the consent ledger in force for a contact, channel and topic."""

    id: UUID
    status: str  # granted | withdrawn
    occurred_at: datetime


@dataclass(frozen=True)
class ConsentFacts:
    """What is known about one message's recipient at the moment of deciding."""

    channel: str
    purpose: Purpose
    topic_id: UUID | None
    organization_status: str
    contact_exists: bool
    has_address: bool
    suppression_id: UUID | None = None
    topic_exists: bool = False
    topic_archived: bool = False
    consent: ConsentLine | None = None


@dataclass(frozen=True)
class HourFacts:
    """What is known about the hour. `window` None: the organization has no quiet hours on this channel. `drop`: a message that would
    have to wait is not sent at all."""

    channel: str
    purpose: Purpose
    window: QuietHours | None
    zone: ChosenZone
    drop: bool = False


@dataclass(frozen=True)
class Decision:
    """Send, hold until `hold_until` (aware UTC), or refuse; with the facts it rests on (ids, codes and times only).

    A message that may be sent now may be so until `allowed_until`; None: for good.
    """

    outcome: Outcome
    reason: Reason | None = None
    hold_until: datetime | None = None
    allowed_until: datetime | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)


def decide_consent(facts: ConsentFacts, at: datetime, asked: int = 0) -> Decision:
    """Marketing needs granted consent for its topic and channel; nothing outranks a suppression.

    While its organization is suspended a message waits, as at the last check before a send: a suspension is lifted again, and nobody
    speaks to runs then. `at` is aware; `asked` is how often its visit of the step has asked before since the run
    was last moved, for it is asked ever more rarely.
    """
    if facts.organization_status != "active":
        again = shared_instant(at + doubled(WHILE_SUSPENDED[0], asked, WHILE_SUSPENDED[1]))
        return Decision(Outcome.HOLD, Reason.ORGANIZATION_SUSPENDED, again, inputs=_consent_inputs(facts))
    reason = _refusal(facts)
    return Decision(Outcome.SEND if reason is None else Outcome.REFUSE, reason, inputs=_consent_inputs(facts))


def _refusal(facts: ConsentFacts) -> Reason | None:
    """The first of the reasons, the widest first."""
    if not facts.contact_exists:
        return Reason.CONTACT_GONE
    if not facts.has_address:
        return Reason.NO_ADDRESS
    if facts.suppression_id is not None:
        return Reason.SUPPRESSED
    return _marketing_refusal(facts) if facts.purpose == "marketing" else None


def _marketing_refusal(facts: ConsentFacts) -> Reason | None:
    if not facts.topic_exists:
        return Reason.NO_TOPIC
    if facts.topic_archived:
        return Reason.TOPIC_ARCHIVED
    if facts.consent is None:
        return Reason.NO_CONSENT
    return None if facts.consent.status == "granted" else Reason.CONSENT_WITHDRAWN


def _consent_inputs(facts: ConsentFacts) -> dict[str, Any]:
    consent = facts.consent
    return {
        "channel": facts.channel,
        "purpose": facts.purpose,
        "topic_id": None if facts.topic_id is None else str(facts.topic_id),
        "topic_archived": facts.topic_archived,
        "organization_status": facts.organization_status,
        "has_address": facts.has_address,
        "suppression_id": None if facts.suppression_id is None else str(facts.suppression_id),
        "consent": None
        if consent is None
        else {"id": str(consent.id), "status": consent.status, "occurred_at": consent.occurred_at.isoformat()},
    }


def has_hours(channel: str, purpose: Purpose) -> bool:
    """Whether quiet hours are asked about at all: not for transactional mail."""
    return not (purpose == "transactional" and channel == "email")


def decide_hours(facts: HourFacts, at: datetime) -> Decision:
    """Marketing waits for the end of the contact's quiet hours; transactional mail, which was asked for, does not."""
    inputs = _hour_inputs(facts, at)
    if facts.window is None or not has_hours(facts.channel, facts.purpose):
        return Decision(Outcome.SEND, inputs=inputs)
    try:
        allowed = next_allowed(at, facts.window, facts.zone.zone)
    except NeverAllowed:
        return Decision(Outcome.REFUSE, Reason.ALWAYS_QUIET, inputs=inputs)
    if allowed > at and facts.drop:
        return Decision(Outcome.REFUSE, Reason.QUIET_HOURS, inputs=inputs)
    if allowed > at:
        return Decision(Outcome.HOLD, Reason.QUIET_HOURS, allowed, inputs=inputs)
    return Decision(Outcome.SEND, allowed_until=allowed_until(at, facts.window, facts.zone.zone), inputs=inputs)


def _hour_inputs(facts: HourFacts, at: datetime) -> dict[str, Any]:
    window = facts.window
    return {
        "channel": facts.channel,
        "purpose": facts.purpose,
        "at": at.isoformat(),
        "zone": facts.zone.zone.key,
        "zone_of": facts.zone.used,
        "contact_zone": facts.zone.contact_zone,
        "window": None if window is None else {"start": window.start.isoformat("minutes"), "end": window.end.isoformat("minutes")},
    }
