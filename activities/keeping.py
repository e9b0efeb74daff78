"""Replays do not send again what another run of their chain has sent, or may have sent."""

from collections.abc import Sequence
from uuid import UUID

from activities.contracts import TRANSMIT_LEASE, SendOutcome, SendResult, StepVisit, VisitBatch
from models.domain.audit import NewEntry
from models.store import kept
from models.store.kept import Asked, Message
from models.store.session import OrganizationSession


async def kept_messages(
    session: OrganizationSession, batch: VisitBatch, visits: Sequence[StepVisit] | None = None
) -> tuple[dict[UUID, SendResult], list[NewEntry]]:
    """By run, the result of its message without any sending, and what the audit chain is to be told, last in the transaction. Nothing,
    and no statement, for runs that are no replays."""
    if not batch.scope.replay:
        return {}, []
    asked = [Asked(each.run_id, each.contact_id, each.step_id, each.visit) for each in (batch.visits if visits is None else visits)]
    found, entries = await kept.sent(session, asked, TRANSMIT_LEASE)
    return {run_id: _result(run_id, message, batch) for run_id, message in found.items()}, entries


def _result(run_id: UUID, message: Message, batch: VisitBatch) -> SendResult:
    result = SendResult(
        run_id=run_id, outcome=SendOutcome.ACCEPTED, delivery_id=message.delivery_id, kept_from=message.sent_by, kept_at=message.at
    )
    if message.certain:
        return result
    if message.open:
        return result.model_copy(
            update={"outcome": SendOutcome.TRANSIENT, "reason": "being_sent", "retry_at": batch.now + TRANSMIT_LEASE, "delivery_id": None}
        )
    return result.model_copy(update={"outcome": SendOutcome.UNKNOWN, "reason": message.reason or "unknown"})
