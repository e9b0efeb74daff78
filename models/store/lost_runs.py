"""Runs whose workflow is gone for good: nobody but the record can end them."""

from uuid import UUID

from sqlalchemy import select
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
    chosen = select(Run).where(col(Run.organization_id) == session.organization_id, col(Run.id) == run_id).with_for_update()
    run = (await session.execute(chosen)).scalar_one_or_none()
    if run is None:
        raise NotFound("run", run_id)
    if run.status != Phase.NEEDS_ATTENTION or run.reason != LOST:
        raise Conflict(f"The run is {run.status} now; look at it again.")
    ended = NewTransition(
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
        details={},
    )
    await transitions.record(session, run.journey_id, [ended])
    await session.refresh(run)
    return run
