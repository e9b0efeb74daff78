"""Runs: the projection of each contact's trip. Written here only at creation; afterwards `transitions` keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlmodel import col

from models.domain.errors import NotFound
from models.domain.journey.failures import FailureClass
from models.domain.journey.run import Phase
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.contacts import Contact
from models.tables.journeys import Run


@dataclass(frozen=True)
class RunFilter:
    """None: whatever."""

    journey_id: UUID | None = None
    version_id: UUID | None = None
    campaign_id: UUID | None = None
    contact_id: UUID | None = None
    status: Phase | None = None
    step_id: str | None = None
    failure_class: FailureClass | None = None
    failure_fingerprint: str | None = None


async def create(
    session: OrganizationSession,
    *,
    run_id: UUID,
    journey_id: UUID,
    version_id: UUID,
    contact_id: UUID,
    workflow_id: str,
    step_id: str,
    variables: Mapping[str, Any],
    request_id: UUID | None,
    entry_key: str | None = None,
) -> Run:
    """A run outside any campaign exists, active, with no transition recorded: its workflow may be started.

    It began after the journey's lock was had, by the database's clock: which came first, it or an event or its journey's cancellation,
    is never a matter of two hosts' clocks.
    """
    now = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    run = Run(
        id=run_id,
        organization_id=session.organization_id,
        updated_at=now,
        journey_id=journey_id,
        version_id=version_id,
        contact_id=contact_id,
        workflow_id=workflow_id,
        step_id=step_id,
        variables=dict(variables),
        request_id=request_id,
        entry_key=entry_key,
        created_at=now,
    )
    session.add(run)
    await session.flush()
    return run


# In the order of runs, so that two writers of the same ones do not deadlock.
_ADD_VARIABLES = text(
    """
    WITH told AS MATERIALIZED (
      SELECT a.run_id, a.variables FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, variables jsonb)
      CROSS JOIN LATERAL (SELECT r.id FROM runs r WHERE r.organization_id = :o AND r.id = a.run_id LIMIT 1 FOR NO KEY UPDATE) r)
    UPDATE runs r SET variables = r.variables || a.variables FROM told a
    WHERE r.organization_id = :o AND r.id = a.run_id AND r.id = ANY(ARRAY(SELECT run_id FROM told))
    """
)


async def add_variables(session: OrganizationSession, variables: Mapping[UUID, Mapping[str, Any]]) -> None:
    """The runs also have these variables, in place of those of the same names. One statement."""
    if variables:
        rows = [{"run_id": run_id, "variables": dict(variables[run_id])} for run_id in sorted(variables)]
        await session.execute(_ADD_VARIABLES, {"o": session.organization_id, "rows": rowset(rows)})


async def contact_exists(session: OrganizationSession, contact_id: UUID) -> bool:
    statement = select(col(Contact.id)).where(col(Contact.organization_id) == session.organization_id, col(Contact.id) == contact_id)
    return (await session.execute(statement)).first() is not None


async def get(session: OrganizationSession, run_id: UUID) -> Run:
    """The run.

    Raises:
        NotFound: no such run in this organization.
    """
    found = (await session.execute(select(Run).where(_mine(session), col(Run.id) == run_id))).scalar_one_or_none()
    if found is None:
        raise NotFound("run", run_id)
    return found


async def find_by_request(session: OrganizationSession, request_id: UUID) -> Run | None:
    """The run that a request with the same Idempotency-Key has made."""
    return (await session.execute(select(Run).where(_mine(session), col(Run.request_id) == request_id))).scalar_one_or_none()


async def page(session: OrganizationSession, wanted: RunFilter, limit: int, after: UUID | None) -> Sequence[Run]:
    """Up to `limit` runs that fit, oldest first, beginning after the id `after`."""
    statement = select(Run).where(_mine(session))
    for name, value in vars(wanted).items():
        if value is not None:
            statement = statement.where(col(getattr(Run, name)) == value)
    if after is not None:
        statement = statement.where(col(Run.id) > after)
    return (await session.execute(statement.order_by(col(Run.id)).limit(limit))).scalars().all()


async def never_started(session: OrganizationSession, older_than: timedelta, limit: int) -> Sequence[Run]:
    """Runs outside campaigns that have been active for longer than `older_than` without a first transition:
    the start of their workflow may have failed. Starting them again is harmless. Some by chance, where there are more than `limit`: what
    cannot be started at all hides no other for good."""
    statement = (
        select(Run)
        .where(
            _mine(session),
            col(Run.campaign_id).is_(None),
            col(Run.entry_source) == "api",  # others share a workflow, which the outbox starts
            col(Run.replay_of).is_(None),  # likewise
            col(Run.status) == Phase.ACTIVE,
            col(Run.sequence) == 0,
            col(Run.created_at) < func.now() - older_than,
        )
        .order_by(func.random())
        .limit(limit)
    )
    return (await session.execute(statement)).scalars().all()


async def cancel_unstarted(session: OrganizationSession, journey_id: UUID, until: datetime) -> None:
    """The journey's runs outside campaigns, and its replays, that were there at `until` and have recorded nothing, and may have no workflow
    to be told yet, are marked: no operation means them any more, and a workflow that is started for them later ends them."""
    alone = or_(col(Run.campaign_id).is_(None), col(Run.replay_of).is_not(None))
    unstarted = (alone, col(Run.status) == Phase.ACTIVE, col(Run.sequence) == 0, col(Run.created_at) <= until)
    statement = update(Run).where(_mine(session), col(Run.journey_id) == journey_id, *unstarted).values(cancel_requested_at=func.now())
    await session.execute(statement)


def _mine(session: OrganizationSession) -> ColumnElement[bool]:
    return col(Run.organization_id) == session.organization_id
