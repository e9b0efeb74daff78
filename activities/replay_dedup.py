"""Replays do not send again what another run of their chain has sent, or may have sent."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from activities.contracts.sending import TRANSMIT_LEASE, SendOutcome, SendResult
from activities.contracts.steps import StepVisit, VisitBatch
from models.domain.audit import NewEntry
from models.domain.journey.definition import Definition
from models.store import kept
from models.store.kept import Asked, Message
from models.store.session import OrganizationSession


async def kept_messages(
    session: OrganizationSession, batch: VisitBatch, definition: Definition
) -> tuple[dict[UUID, SendResult], list[NewEntry]]:
    """By run, the result of its message without any sending, and what the audit chain is to be told, last in the transaction. Nothing,
    and no statement, for runs that are no replays."""
    if not batch.scope.replay:
        return {}, []
    found, entries = await kept.sent(session, asked_of(batch.visits, definition), TRANSMIT_LEASE)
    return {run_id: _result(run_id, message, batch) for run_id, message in found.items()}, entries


def asked_of(visits: Sequence[StepVisit], definition: Definition) -> list[Asked]:
    """The visits, as chains are asked about them."""
    return [
        Asked(
            each.run_id,
            each.contact_id,
            definition.steps[each.step_id].kind,
            each.step_id,
            each.visit,
            each.step_id in definition.looping,
        )
        for each in visits
    ]


def _result(run_id: UUID, message: Message, batch: VisitBatch) -> SendResult:
    result = SendResult(
        run_id=run_id, outcome=SendOutcome.ACCEPTED, delivery_id=message.delivery_id, kept_from=message.sent_by, kept_at=message.at
    )
    if message.certain:
        return result
    if message.open:
        retry_at = batch.now + TRANSMIT_LEASE
        return replace(result, outcome=SendOutcome.TRANSIENT, reason="being_sent", retry_at=retry_at, delivery_id=None)
    return replace(result, outcome=SendOutcome.UNKNOWN, reason=message.reason or "unknown")
