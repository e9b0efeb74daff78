"""The archive of workflow histories: each is stored once, and never changed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.audit import NewEntry
from models.domain.errors import NotFound
from models.store import audit
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.journeys import Run


@dataclass(frozen=True)
class NewHistory:
    """`history` is the JSON, compressed; `sha256` and `size_bytes` are of the JSON itself. Times are aware UTC."""

    workflow_id: str
    temporal_run_id: str
    status: str
    started_at: datetime | None
    closed_at: datetime | None
    events: int
    size_bytes: int
    sha256: str
    history: bytes


Execution = tuple[str, str]  # workflow id and Temporal's run id

_STORED = text(
    """
    SELECT h.workflow_id, h.temporal_run_id FROM workflow_histories h
    JOIN unnest(CAST(:workflows AS text[]), CAST(:runs AS text[])) AS a(workflow_id, temporal_run_id) USING (workflow_id, temporal_run_id)
    WHERE h.organization_id = :o
    """
)


async def stored(session: OrganizationSession, executions: Collection[Execution]) -> set[Execution]:
    """Those of them that the archive has."""
    named = {"workflows": [name for name, _ in executions], "runs": [run for _, run in executions]}
    rows = await session.execute(_STORED, {"o": session.organization_id, **named})
    return {(row.workflow_id, row.temporal_run_id) for row in rows}


_STORE = text(
    """
    INSERT INTO workflow_histories (id, organization_id, workflow_id, temporal_run_id, status, started_at, closed_at, events, size_bytes,
      sha256, history)
    SELECT a.id, :o, a.workflow_id, a.temporal_run_id, a.status, a.started_at, a.closed_at, a.events, a.size_bytes, a.sha256, a.history
    FROM unnest(CAST(:ids AS uuid[]), CAST(:workflow_ids AS text[]), CAST(:temporal_run_ids AS text[]), CAST(:statuses AS text[]),
      CAST(:started AS timestamptz[]), CAST(:closed AS timestamptz[]), CAST(:events AS int[]), CAST(:sizes AS int[]),
      CAST(:hashes AS text[]), CAST(:histories AS bytea[]))
      AS a(id, workflow_id, temporal_run_id, status, started_at, closed_at, events, size_bytes, sha256, history)
    ORDER BY a.workflow_id, a.temporal_run_id
    ON CONFLICT (organization_id, workflow_id, temporal_run_id) DO NOTHING
    RETURNING id, workflow_id, temporal_run_id, status, events, sha256
    """
)


async def store(session: OrganizationSession, histories: Sequence[NewHistory]) -> int:
    """The archive has them, and the audit chain their checksums; how many are new. Safe to repeat. Call it last in a transaction."""
    rows = await session.execute(
        _STORE,
        {
            "o": session.organization_id,
            "ids": [new_id() for _ in histories],
            "workflow_ids": [one.workflow_id for one in histories],
            "temporal_run_ids": [one.temporal_run_id for one in histories],
            "statuses": [one.status for one in histories],
            "started": [one.started_at for one in histories],
            "closed": [one.closed_at for one in histories],
            "events": [one.events for one in histories],
            "sizes": [one.size_bytes for one in histories],
            "hashes": [one.sha256 for one in histories],
            "histories": [one.history for one in histories],
        },
    )
    new = rows.all()
    await audit.append(session, [NewEntry("history.archived", "workflow", row.workflow_id, details=_told(row._asdict())) for row in new])
    return len(new)


def _told(row: dict[str, object]) -> dict[str, object]:
    return {
        "history_id": str(row["id"]),
        "temporal_run_id": row["temporal_run_id"],
        "status": row["status"],
        "events": row["events"],
        "sha256": row["sha256"],
    }


@dataclass(frozen=True)
class Archived:
    """A history without its contents."""

    id: UUID
    workflow_id: str
    temporal_run_id: str
    status: str
    started_at: datetime | None
    closed_at: datetime | None
    events: int
    size_bytes: int
    sha256: str
    archived_at: datetime


_COLUMNS = "id, workflow_id, temporal_run_id, status, started_at, closed_at, events, size_bytes, sha256, created_at AS archived_at"
_PAGE = text(
    f"""SELECT {_COLUMNS} FROM workflow_histories
        WHERE organization_id = :o AND workflow_id = ANY(CAST(:names AS text[])) AND id > :after ORDER BY id LIMIT :limit"""
)


async def page(session: OrganizationSession, run: Run, limit: int, after: UUID | None) -> list[Archived]:
    """Up to `limit` histories of the workflows that carried the run, in the order in which they were archived."""
    wanted = {"o": session.organization_id, "names": _workflows(run), "after": after or UUID(int=0), "limit": limit}
    return [Archived(*row) for row in await session.execute(_PAGE, wanted)]


_READ = text(
    f"""SELECT {_COLUMNS}, history FROM workflow_histories
        WHERE organization_id = :o AND workflow_id = ANY(CAST(:names AS text[])) AND id = :id"""
)


async def read(session: OrganizationSession, run: Run, history_id: UUID) -> tuple[Archived, bytes]:
    """The history of a workflow that carried the run, and its JSON, compressed.

    Raises:
        NotFound: there is none of this id among them.
    """
    row = (await session.execute(_READ, {"o": session.organization_id, "names": _workflows(run), "id": history_id})).one_or_none()
    if row is None:
        raise NotFound("workflow history", history_id)
    *described, history = row
    return Archived(*described), bytes(history)


def _workflows(run: Run) -> list[str]:
    return [*run.earlier_workflows, run.workflow_id]


async def closed_to(session: AsyncSession, namespace: str) -> datetime | None:
    """Until when the workflows that closed in the namespace are all archived; None: nobody has looked yet."""
    found: datetime | None = await session.scalar(text("SELECT closed_to FROM archive_marks WHERE namespace = :n"), {"n": namespace})
    return found


async def set_closed_to(session: AsyncSession, namespace: str, at: datetime) -> None:
    """The mark only moves forward."""
    await session.execute(
        text(
            """INSERT INTO archive_marks (namespace, closed_to) VALUES (:n, :at)
               ON CONFLICT (namespace) DO UPDATE SET closed_to = greatest(archive_marks.closed_to, EXCLUDED.closed_to)"""
        ),
        {"n": namespace, "at": at},
    )
