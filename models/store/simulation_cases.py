"""Cases of journeys. Names are unique within a journey."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from models.domain.errors import Conflict, NotFound
from models.domain.simulation.case import MAX_CASES, Case
from models.store.session import OrganizationSession
from models.tables.base import new_id, utc_now
from models.tables.simulations import SimulationCase


async def add(session: OrganizationSession, journey_id: UUID, case: Case, saved_by: UUID | None) -> SimulationCase:
    """The case is kept. The caller holds the journey's lock.

    Raises:
        Conflict: the journey has a case of this name, or as many as it may have.
    """
    count = select(func.count()).select_from(SimulationCase).where(*_of(session, journey_id))
    if (await session.scalar(count) or 0) >= MAX_CASES:
        raise Conflict(f"A journey has at most {MAX_CASES} cases, for all of them run on every publish; delete one first.")
    row = _row(session, journey_id, case, saved_by)
    created = (await session.scalars(insert(SimulationCase).values(**row).on_conflict_do_nothing().returning(SimulationCase))).one_or_none()
    if created is None:
        raise _taken()
    return created


async def change(session: OrganizationSession, journey_id: UUID, case_id: UUID, case: Case, saved_by: UUID | None) -> SimulationCase:
    """The case says this instead. Raises NotFound; Conflict when another one has the name."""
    found = await get(session, journey_id, case_id, lock=True)
    others = select(col(SimulationCase.id)).where(*_of(session, journey_id), col(SimulationCase.name) == case.name)
    if (await session.scalars(others.where(col(SimulationCase.id) != case_id))).first() is not None:
        raise _taken()
    for name, value in _said(case).items():
        setattr(found, name, value)
    found.saved_by, found.updated_at = saved_by, utc_now()
    await session.flush()
    return found


async def replace_all(session: OrganizationSession, journey_id: UUID, cases: Sequence[Case], saved_by: UUID | None) -> bool:
    """The journey has these cases (of different names) and no others. Whether anything is different now. The caller holds the
    journey's lock. A constant number of statements."""
    before = {case.name: case for case in await every(session, journey_id)}
    gone = before.keys() - {case.name for case in cases}
    new = [case for case in cases if case.name not in before or _said(before[case.name]) != _said(case)]
    if gone:
        await session.execute(delete(SimulationCase).where(*_of(session, journey_id), col(SimulationCase.name).in_(gone)))
    if new:
        statement = insert(SimulationCase).values([_row(session, journey_id, case, saved_by) for case in new])
        replaced = {name: getattr(statement.excluded, name) for name in ("start", "scenario", "expected", "saved_by", "updated_at")}
        await session.execute(statement.on_conflict_do_update(index_elements=["journey_id", "name"], set_=replaced))
    return bool(gone or new)


async def remove(session: OrganizationSession, journey_id: UUID, case_id: UUID) -> None:
    """The case is gone. Raises NotFound."""
    statement = delete(SimulationCase).where(*_of(session, journey_id), col(SimulationCase.id) == case_id)
    if (await session.scalars(statement.returning(col(SimulationCase.id)))).one_or_none() is None:
        raise NotFound("case", case_id)


async def get(session: OrganizationSession, journey_id: UUID, case_id: UUID, *, lock: bool = False) -> SimulationCase:
    """Raises NotFound."""
    statement = select(SimulationCase).where(*_of(session, journey_id), col(SimulationCase.id) == case_id)
    found = (await session.scalars(statement.with_for_update() if lock else statement)).one_or_none()
    if found is None:
        raise NotFound("case", case_id)
    return found


async def page(session: OrganizationSession, journey_id: UUID, limit: int, after: UUID | None) -> Sequence[SimulationCase]:
    """Up to `limit` cases, oldest first, beginning after the id `after`."""
    statement = select(SimulationCase).where(*_of(session, journey_id))
    if after is not None:
        statement = statement.where(col(SimulationCase.id) > after)
    return (await session.scalars(statement.order_by(col(SimulationCase.id)).limit(limit))).all()


async def every(session: OrganizationSession, journey_id: UUID, names: Collection[str] | None = None) -> list[Case]:
    """All cases of the journey (of these names), by their names."""
    statement = select(SimulationCase).where(*_of(session, journey_id))
    if names is not None:
        statement = statement.where(col(SimulationCase.name).in_(names))
    return [case_of(row) for row in (await session.scalars(statement.order_by(col(SimulationCase.name)))).all()]


def case_of(row: SimulationCase) -> Case:
    return Case.model_validate({"name": row.name, "start": row.start, **row.scenario, "expected": row.expected})


def _row(session: OrganizationSession, journey_id: UUID, case: Case, saved_by: UUID | None) -> dict[str, Any]:
    mine = {"id": new_id(), "organization_id": session.organization_id, "journey_id": journey_id, "saved_by": saved_by}
    return {**mine, "updated_at": utc_now(), **_said(case)}


def _said(case: Case) -> dict[str, Any]:
    """Only what was said: an expectation that leaves something out must not come back with a null in its place."""
    document = case.model_dump(mode="json", exclude_unset=True)
    scenario = {name: document[name] for name in ("until", "given", "script") if name in document}
    return {"name": case.name, "start": case.start, "scenario": scenario, "expected": document["expected"]}


def _taken() -> Conflict:
    return Conflict("The journey has a case of this name already; choose another name, or change that one.")


def _of(session: OrganizationSession, journey_id: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (col(SimulationCase.organization_id) == session.organization_id, col(SimulationCase.journey_id) == journey_id)
