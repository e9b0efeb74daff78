"""Runs whose workflow is gone for good: nobody but the record can end them."""

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, select
from sqlmodel import col

from models.domain.audit import Actor
from models.domain.errors import Conflict, NotFound
from models.domain.findings import LOST
from models.domain.journey.run import Phase
from models.store import transitions
from models.store.session import OrganizationSession
from models.store.transitions import NewTransition
from models.tables.base import utc_now
from models.tables.journeys import Run


async def cancel(session: OrganizationSession, run_id: UUID, actor: Actor, reason: str | None) -> Run:
    """The run is cancelled, with the next transition that its workflow would have recorded. Call it last in a transaction.

    Raises:
        NotFound: no such run.
        Conflict: its workflow is not gone, or it has ended meanwhile.
    """
    found = (await session.execute(_chosen(session, [run_id]))).scalar_one_or_none()
    if found is None:
        raise NotFound("run", run_id)
    if not _is_lost(found):
        raise Conflict(f"The run is {found.status} now; look at it again.")
    await end(session, [found], actor, reason)
    await session.refresh(found)
    return found


async def lock(session: OrganizationSession, run_ids: Sequence[UUID]) -> list[Run]:
    """Those of the runs whose workflow is gone and that have not ended; nobody else changes them before this transaction ends."""
    return [run for run in (await session.execute(_chosen(session, run_ids))).scalars() if _is_lost(run)]


async def end(
    session: OrganizationSession, lost: Sequence[Run], actor: Actor, reason: str | None, operation_id: UUID | None = None
) -> None:
    """These runs, which are locked and lost, are cancelled. Call it last in a transaction: it locks the audit chain's head."""
    by_journey: defaultdict[UUID, list[NewTransition]] = defaultdict(list)
    for run in lost:
        by_journey[run.journey_id].append(_cancelled(run, actor, reason, operation_id))
    for journey_id in sorted(by_journey):
        await transitions.record(session, journey_id, by_journey[journey_id])


def _cancelled(run: Run, actor: Actor, reason: str | None, operation_id: UUID | None) -> NewTransition:
    return NewTransition(
        run_id=run.id,
        sequence=run.sequence + 1,
        kind=str(Phase.CANCELLED),
        phase=str(Phase.CANCELLED),
        occurred_at=utc_now(),
        step_id=run.step_id,
        visit=None,
        wake_at=None,
        reason=reason,
        actor=actor,
        details={} if operation_id is None else {"operation_id": str(operation_id)},
    )


def _is_lost(run: Run) -> bool:
    return run.status == Phase.NEEDS_ATTENTION and run.reason == LOST


def _chosen(session: OrganizationSession, run_ids: Sequence[UUID]) -> Select[Run]:
    """Locked in the order of runs, as the record of transitions does."""
    mine = (col(Run.organization_id) == session.organization_id, col(Run.id).in_(run_ids))
    return select(Run).where(*mine).order_by(col(Run.id)).with_for_update()
