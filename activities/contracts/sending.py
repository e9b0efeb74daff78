"""One message: may it be sent, may it be sent now, and what became of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from temporalio import activity

from activities.contracts.steps import VisitBatch
from models.domain.decision import Outcome


class SendOutcome(StrEnum):
    """What became of a message: docs/sending.md, section 3."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # consent or suppression changed between the check and the claim
    PAUSED = "paused"  # campaign, journey or organization was paused; nothing was sent; ask again after resuming
    THROTTLED = "throttled"  # wait until retry_at, then ask again
    TRANSIENT = "transient"  # certainly not sent; ask again at retry_at
    RECIPIENT_PERMANENT = "recipient_permanent"
    CONTENT_PERMANENT = "content_permanent"
    OPTED_OUT = "opted_out"
    CONNECTION_BROKEN = "connection_broken"
    GAVE_UP = "gave_up"  # certainly not sent, after MAXIMUM_TRIES transient answers: a person decides
    UNKNOWN = "unknown"  # may have been accepted: never sent again by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    run_id: UUID
    outcome: SendOutcome
    reason: str | None = None
    retry_at: datetime | None = None
    delivery_id: UUID | None = None
    kept_from: UUID | None = None  # the run of a replay's chain that had sent it before, or may have
    kept_at: datetime | None = None  # when that was


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The answer of consent-check or quiet-hours for one run."""

    run_id: UUID
    verdict: Outcome
    reason: str | None = None
    hold_until: datetime | None = None  # with HOLD
    allowed_until: datetime | None = None  # with SEND from quiet-hours: when the permitted hours end, None: never
    kept: SendResult | None = None  # there is nothing to ask: it was sent, or may have been, by the run that this one replays


TRANSMIT_LEASE = timedelta(seconds=30)  # a message handed over this long ago, its attempt silent, is unknown
MAXIMUM_TRIES = 8  # transient and throttled answers to one message before it gives up
FIRST_RETRY = timedelta(seconds=15)  # doubled after every try, when the provider named no time
LONGEST_RETRY = timedelta(minutes=15)
SETTLE_PATIENCE = timedelta(seconds=60)  # how long a heard answer waits for an absent database


@activity.defn(name="check_consent")
async def check_consent(batch: VisitBatch) -> list[Judgement]:
    """May each of these messages be sent as far as consent, suppression, topic and address say? Holds in a suspended organization."""
    raise NotImplementedError


@activity.defn(name="check_quiet_hours")
async def check_quiet_hours(batch: VisitBatch) -> list[Judgement]:
    """Is it a permitted hour at each contact's place? Holds until the window's end where not."""
    raise NotImplementedError


@activity.defn(name="send_messages")
async def send_messages(batch: VisitBatch) -> list[SendResult]:
    """Each message is claimed, handed to the provider at most once, and its outcome settled."""
    raise NotImplementedError
