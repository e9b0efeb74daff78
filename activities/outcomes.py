"""From what a provider or the fence said to what the ledger keeps and the workflow hears."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from activities.contracts.sending import FIRST_RETRY, LONGEST_RETRY, MAXIMUM_TRIES, SendOutcome, SendResult
from activities.message import Message
from activities.providers.port import ProviderAnswer
from models.domain.back_off import doubled
from models.domain.wait_time import shared_instant
from models.store.deliveries import DeliveryRow, Settlement

RETRIED = (SendOutcome.TRANSIENT, SendOutcome.THROTTLED)


@dataclass(frozen=True)
class Conclusion:
    """One message's end in this batch: what the workflow hears, and what the ledger is told (None: it knows)."""

    result: SendResult
    settlement: Settlement | None = None

    def suppressing(self, channel: str, address_hash: bytes) -> "Conclusion":
        """The same, and nothing more goes to this address over `channel`."""
        assert self.settlement is not None
        return replace(self, settlement=replace(self.settlement, suppress=(channel, address_hash)))


class Concluder:
    """Concludes for one attempt of one batch."""

    def __init__(self, attempt: UUID) -> None:
        self.attempt = attempt

    def answered(self, message: Message, answer: ProviderAnswer, now: datetime) -> Conclusion:
        """A provider's answer other than ABORTED. `now` is the workflow's clock, moved on by real time."""
        outcome = SendOutcome(answer.outcome)
        match outcome:
            case SendOutcome.ACCEPTED:
                return self._answered(message, "accepted", outcome, None, answer.provider_message_id)
            case SendOutcome.UNKNOWN:
                return self._answered(message, "unknown", outcome, answer.reason)
            case SendOutcome.TRANSIENT | SendOutcome.THROTTLED if message.attempts + 1 >= MAXIMUM_TRIES:
                return self._answered(message, "failed", SendOutcome.GAVE_UP, f"gave_up:{answer.reason or outcome}")
            case SendOutcome.TRANSIENT | SendOutcome.THROTTLED:
                wait = answer.retry_after if answer.retry_after is not None else back_off(message.attempts)
                return self.released(message, outcome, answer.reason, shared_instant(now + wait), tries=1)
            case SendOutcome.CONNECTION_BROKEN | SendOutcome.PAUSED:
                return self.released(message, outcome, answer.reason)
            case _:
                return self._answered(message, "failed", outcome, answer.reason)

    def _answered(
        self, message: Message, state: str, outcome: SendOutcome, reason: str | None, provider_message_id: str | None = None
    ) -> Conclusion:
        """The end, by what the provider said (or did not say)."""
        told = self.settled(message, state, outcome, reason, provider_message_id)
        assert told.settlement is not None
        return replace(told, settlement=replace(told.settlement, tries=1))

    def settled(
        self, message: Message, state: str, outcome: SendOutcome, reason: str | None, provider_message_id: str | None = None
    ) -> Conclusion:
        """The end: `state` is accepted, refused, failed or unknown."""
        result = SendResult(run_id=message.run_id, outcome=outcome, reason=reason, delivery_id=message.id)
        kept = Settlement(message.id, self.attempt, state, outcome, _clean(reason), _clean(provider_message_id))
        return Conclusion(result, kept)

    def released(
        self, message: Message, outcome: SendOutcome, reason: str | None, retry_at: datetime | None = None, tries: int = 0
    ) -> Conclusion:
        """Certainly not sent, to be asked for again."""
        result = SendResult(run_id=message.run_id, outcome=outcome, reason=reason, retry_at=retry_at, delivery_id=message.id)
        return Conclusion(result, Settlement(message.id, self.attempt, "claimed", outcome, _clean(reason), tries=tries))


def standing_result(standing: DeliveryRow, now: datetime) -> SendResult:
    """What became of a message that another attempt carried, or carried before."""
    outcome = SendOutcome(standing.outcome or SendOutcome.TRANSIENT)
    retry_at = shared_instant(now + back_off(standing.attempts)) if outcome in RETRIED else None
    return SendResult(run_id=standing.run_id, outcome=outcome, reason=standing.reason, retry_at=retry_at, delivery_id=standing.id)


def back_off(tries: int) -> timedelta:
    """How long to wait after `tries` earlier tries."""
    return doubled(FIRST_RETRY, tries, LONGEST_RETRY)


def _clean(text: str | None) -> str | None:
    """A provider's text as PostgreSQL takes it: no NUL, no half characters, not too long."""
    return None if text is None else text.replace("\0", "").encode(errors="replace").decode()[:500]
