"""Operations on many runs: the snapshot of those that a selection fits (see `run_selection`), and what became of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text
from sqlmodel import col

from models.domain.audit import Actor, NewEntry
from models.domain.errors import Conflict, NotFound, PreviewOutdated
from models.domain.findings import LOST
from models.domain.journey.operations import RunSelection
from models.store import audit
from models.store.limits import within
from models.store.rowset import rowset
from models.store.run_places import VISIT
from models.store.run_selection import FINGERPRINT, LOOK, TAKEN, RunQuery, fitting
from models.store.session import OrganizationSession
from models.tables.operating import RunOperation

PREVIEW_HOLDS = timedelta(minutes=15)
PREVIEW_KEPT = timedelta(days=1)  # one that nobody carried out

# Runs of one workflow stand together, so that it is told of many of them at once.
_TAKE = """
    WITH t AS MATERIALIZED ({taken}),
    items AS (
      INSERT INTO run_operation_items (id, organization_id, operation_id, run_id, position, step_id, visit, result, details)
      SELECT gen_random_uuid(), :o, :operation_id, t.id, row_number() OVER (ORDER BY t.workflow_id, t.id), t.step_id,
        (SELECT {visit} FROM runs r WHERE r.organization_id = :o AND r.id = t.id), 'pending', '{{}}' FROM t)
    SELECT count(*) AS runs, CAST({fingerprint} AS text) AS fingerprint FROM t"""


# --- The operation itself -------------------------------------------------------------------------------------------


async def add(
    session: OrganizationSession, wanted: RunQuery, preview: Mapping[str, Any], runs: int, created_by: UUID | None
) -> RunOperation:
    """The preview is kept for a while, with what `run_selection.bound` says among it; nothing is done about it yet. Old ones that nobody
    carried out are forgotten."""
    forget = text("DELETE FROM run_operations WHERE organization_id = :o AND status = 'previewed' AND expires_at < :before")
    now = datetime.now(UTC)
    await session.execute(forget, {"o": session.organization_id, "before": now - PREVIEW_KEPT})
    row = RunOperation(
        organization_id=session.organization_id,
        command=wanted.command,
        selection=wanted.selection.model_dump(mode="json", exclude_none=True),
        arguments=dict(wanted.arguments),
        maximum=wanted.maximum,
        preview=dict(preview),
        runs=runs,
        expires_at=now + PREVIEW_HOLDS,
        created_by=created_by,
    )
    session.add(row)
    await session.flush()
    return row


def wanted_of(operation: RunOperation) -> RunQuery:
    return RunQuery(operation.command, RunSelection.model_validate(operation.selection), operation.arguments, operation.maximum)


def versions_in(bound: Mapping[str, Any]) -> dict[UUID, UUID]:
    """By journey, the version that was current at the preview, which holds what `run_selection.bound` said then; empty where none is asked
    for."""
    return {UUID(journey_id): UUID(version_id) for journey_id, version_id in bound.get("versions", {}).items()}


async def get(session: OrganizationSession, operation_id: UUID, *, lock: bool = False) -> RunOperation:
    """The operation or preview. With `lock`, nobody else changes it before this transaction ends. Raises NotFound."""
    statement = select(RunOperation).where(_mine(session), col(RunOperation.id) == operation_id)
    found = (await session.execute(statement.with_for_update() if lock else statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("run operation", operation_id)
    return found


async def page(session: OrganizationSession, limit: int, after: UUID | None) -> Sequence[RunOperation]:
    """Up to `limit` operations that were carried out, oldest first, beginning after the id `after`."""
    statement = select(RunOperation).where(_mine(session), col(RunOperation.status) != "previewed")
    if after is not None:
        statement = statement.where(col(RunOperation.id) > after)
    return (await session.execute(statement.order_by(col(RunOperation.id)).limit(limit))).scalars().all()


async def overdue(session: OrganizationSession, older_than: timedelta, limit: int) -> Sequence[RunOperation]:
    """Operations that have been running for longer than `older_than`: the start of their workflow may have failed. Some by chance, where
    there are more than `limit`."""
    statement = select(RunOperation).where(
        _mine(session), col(RunOperation.status) == "running", col(RunOperation.executed_at) < func.now() - older_than
    )
    return (await session.execute(statement.order_by(func.random()).limit(limit))).scalars().all()


async def execute(session: OrganizationSession, operation: RunOperation, actor: Actor, reason: str) -> None:
    """The runs that the selection fits now are taken down as the operation's, in one statement, and it is running. The caller holds
    its lock.

    Raises:
        PreviewOutdated: the preview is too old, or is not of exactly these runs, on these versions, any more; nothing is changed.
        Unavailable: taking them down took longer than `LOOK`; nothing is changed.
    """
    now = datetime.now(UTC)
    if operation.expires_at <= now:
        raise PreviewOutdated("The preview has expired; make a new one.")
    wanted = wanted_of(operation)
    async with within(session, LOOK):
        sql, parameters = await fitting(session, wanted)
        take = text(_TAKE.format(taken=TAKEN.format(fitting=sql), visit=VISIT, fingerprint=FINGERPRINT))
        taken = (await session.execute(take, {**parameters, "operation_id": operation.id, "maximum": operation.maximum})).one()
    if taken.runs != operation.runs:
        raise PreviewOutdated(
            f"The preview counted {operation.runs} runs; now it would be {taken.runs}. Make a new preview, and look again."
        )
    if taken.fingerprint != operation.preview["fingerprint"]:
        raise PreviewOutdated(
            "As many runs fit as the preview counted, but not the same ones, or they would go on with other versions by now. "
            "Make a new preview, and look again."
        )
    operation.status, operation.reason = "running", reason
    operation.actor_kind, operation.executed_by, operation.executed_at = actor.kind, actor.id, now
    if not taken.runs:
        operation.status, operation.completed_at = "completed", now
    await session.flush()


async def cancel(session: OrganizationSession, operation_id: UUID, by: UUID | None) -> tuple[RunOperation, bool]:
    """Runs that have not been told yet are left alone; whether that is news.

    Raises:
        NotFound: no such operation.
        Conflict: it was never carried out, or is over.
    """
    operation = await get(session, operation_id, lock=True)
    if operation.status == "previewed":
        raise Conflict("This is a preview; it does nothing unless it is carried out.")
    if operation.status == "completed":
        raise Conflict("The operation is completed; every run has been told.")
    if operation.cancelled_at is not None:
        return operation, False
    operation.cancelled_at, operation.cancelled_by = datetime.now(UTC), by
    await session.flush()
    return operation, True


# --- Its runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """A run that is to be told, as it is recorded now. `step_id` and `visit`: where it stood when it was taken."""

    run_id: UUID
    position: int
    step_id: str | None
    visit: int | None
    workflow_id: str
    status: str  # now
    finished: bool  # now
    lost: bool  # now: its workflow is gone for good


@dataclass(frozen=True)
class Settled:
    """What became of one run. `result`: done, unchanged or failed; `why`: a code, unless it was done; `status`: of the run."""

    run_id: UUID
    result: str
    why: str | None = None
    status: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


_PENDING = text(
    """
    SELECT i.run_id, i.position, i.step_id, i.visit, r.workflow_id, r.status, r.finished_at IS NOT NULL AS finished,
      r.finished_at IS NULL AND r.reason IS NOT DISTINCT FROM :lost AS lost
    FROM run_operation_items i JOIN runs r ON r.organization_id = :o AND r.id = i.run_id
    WHERE i.organization_id = :o AND i.operation_id = :id AND i.result = 'pending' AND i.position > :after AND i.position <= :until
    ORDER BY i.position
    """
)
_SETTLE = text(
    """
    WITH settled AS (
      UPDATE run_operation_items i SET result = a.result, why = a.why, status = a.status, details = a.details,
        settled_at = clock_timestamp()
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, result text, why text, status text, details jsonb)
      WHERE i.organization_id = :o AND i.operation_id = :id AND i.run_id = a.run_id AND i.result = 'pending'
      RETURNING i.result)
    UPDATE run_operations o SET done = o.done + s.done, unchanged = o.unchanged + s.unchanged, failed = o.failed + s.failed
    FROM (SELECT count(*) FILTER (WHERE result = 'done') AS done, count(*) FILTER (WHERE result = 'unchanged') AS unchanged,
                 count(*) FILTER (WHERE result = 'failed') AS failed FROM settled) s
    WHERE o.organization_id = :o AND o.id = :id
    """
)
_REMAINING = text(
    """
    SELECT i.position FROM run_operation_items i
    WHERE i.organization_id = :o AND i.operation_id = :id AND i.result = 'pending' AND i.position > :after ORDER BY i.position LIMIT 1
    """
)
_CLOSE = text(
    """
    WITH closed AS (
      UPDATE run_operation_items i SET result = :result, why = :why, settled_at = clock_timestamp()
      WHERE i.organization_id = :o AND i.operation_id = :id AND i.result = 'pending' RETURNING 1)
    SELECT count(*) FROM closed
    """
)


async def pending(session: OrganizationSession, operation_id: UUID, after: int, until: int) -> list[Item]:
    """The runs at the positions from `after`, not included, to `until` that have not been settled, in order."""
    wanted = {"o": session.organization_id, "id": operation_id, "after": after, "until": until, "lost": LOST}
    return [Item(*row) for row in await session.execute(_PENDING, wanted)]


async def first_pending(session: OrganizationSession, operation_id: UUID, after: int = 0) -> int | None:
    """The lowest position behind `after` of a run that has not been settled; None: all have."""
    position: int | None = await session.scalar(_REMAINING, {"o": session.organization_id, "id": operation_id, "after": after})
    return position


async def settle(session: OrganizationSession, operation_id: UUID, results: Sequence[Settled]) -> None:
    """What became of these runs is on record, once: a second word about the same run changes nothing."""
    if results:
        rows = rowset([{**vars(one), "details": dict(one.details)} for one in results])
        await session.execute(_SETTLE, {"o": session.organization_id, "id": operation_id, "rows": rows})


async def finish(session: OrganizationSession, operation_id: UUID, *, give_up: str | None) -> bool:
    """Whether the operation is over: every run is settled, or it was cancelled and the others are left alone. `give_up`: those that are
    not settled failed, for this reason. Marked once, with an audit entry.

    Raises:
        NotFound: no such operation.
    """
    operation = await get(session, operation_id, lock=True)
    if operation.status != "running":
        return True
    closing = ("left_alone", "operation_cancelled") if operation.cancelled_at is not None else ("failed", give_up) if give_up else None
    if closing is None:
        if await first_pending(session, operation_id) is not None:
            return False
    else:
        result, why = closing
        parameters = {"o": session.organization_id, "id": operation_id, "result": result, "why": why}
        closed = int(await session.scalar(_CLOSE, parameters) or 0)
        setattr(operation, result, getattr(operation, result) + closed)
    operation.status = "cancelled" if operation.left_alone else "completed"
    operation.completed_at = datetime.now(UTC)
    await session.flush()
    counts = {name: getattr(operation, name) for name in ("done", "unchanged", "failed", "left_alone")}
    details = {"command": operation.command, **counts}
    await audit.append(session, [NewEntry("run_operation.completed", "run_operation", str(operation_id), details=details)])
    return True


_ITEMS = """
    SELECT i.run_id, i.result, i.why, i.status, i.step_id, i.details, i.settled_at
    FROM run_operation_items i
    WHERE i.organization_id = :o AND i.operation_id = :id AND i.run_id > :after{result} ORDER BY i.run_id LIMIT :limit"""


@dataclass(frozen=True)
class ItemResult:
    run_id: UUID
    result: str
    why: str | None
    status: str | None
    step_id: str | None
    details: Mapping[str, Any]
    settled_at: datetime | None


async def items(session: OrganizationSession, operation_id: UUID, result: str | None, limit: int, after: UUID | None) -> list[ItemResult]:
    """Up to `limit` of the operation's runs, with this result or (None) any, by id, beginning after the id `after`."""
    wanted = {"o": session.organization_id, "id": operation_id, "after": after or UUID(int=0), "limit": limit}
    statement = text(_ITEMS.format(result="" if result is None else " AND i.result = :result"))
    rows = await session.execute(statement, wanted if result is None else wanted | {"result": result})
    return [ItemResult(*row) for row in rows]


def _mine(session: OrganizationSession) -> ColumnElement[bool]:
    return col(RunOperation.organization_id) == session.organization_id
