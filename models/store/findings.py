"""Findings: at most one of a kind is open about a subject. It is seen again until the trouble is gone, and then resolved."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from models.domain.audit import Actor, NewEntry
from models.domain.errors import NotFound
from models.domain.findings import Kind, Sighting, action, cause
from models.store import audit
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id, utc_now
from models.tables.findings import Finding

# In one order, so that two reconcilers that met would wait for each other and not deadlock.
_SEE = text(
    """
    INSERT INTO findings AS f (id, organization_id, kind, severity, subject_kind, subject_id, journey_id, runs, cause, action, details,
      first_seen_at, last_seen_at, seen)
    SELECT a.id, :o, a.kind, a.severity, a.subject_kind, a.subject_id, a.journey_id, a.runs, a.cause, a.action, a.details,
      clock_timestamp(), clock_timestamp(), 1
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, kind text, severity text, subject_kind text, subject_id text,
      journey_id uuid, runs int, cause text, action text, details jsonb)
    ORDER BY a.kind, a.subject_id
    ON CONFLICT (organization_id, kind, subject_id) WHERE resolved_at IS NULL DO UPDATE SET severity = EXCLUDED.severity,
      runs = EXCLUDED.runs, cause = EXCLUDED.cause, action = EXCLUDED.action, details = EXCLUDED.details,
      journey_id = coalesce(EXCLUDED.journey_id, f.journey_id), last_seen_at = EXCLUDED.last_seen_at, seen = f.seen + 1
    RETURNING f.id, f.kind, f.subject_kind, f.subject_id, f.runs, f.seen
    """
)
_RESOLVE = text(
    """
    UPDATE findings SET resolved_at = clock_timestamp()
    WHERE organization_id = :o AND resolved_at IS NULL AND kind = ANY(CAST(:kinds AS text[]))
      AND id <> ALL(CAST(:seen AS uuid[])) AND subject_id <> ALL(CAST(:keep AS text[]))
    RETURNING id, kind, subject_kind, subject_id, runs
    """
)
_TOUCH = text(
    """
    UPDATE findings SET last_seen_at = clock_timestamp(), seen = seen + 1
    WHERE organization_id = :o AND resolved_at IS NULL AND kind = ANY(CAST(:kinds AS text[]))
      AND subject_id = ANY(CAST(:subjects AS text[]))
    """
)
_OPEN = text(
    "SELECT kind, subject_id FROM findings WHERE organization_id = :o AND resolved_at IS NULL AND kind = ANY(CAST(:kinds AS text[]))"
)


@dataclass(frozen=True)
class Recorded:
    opened: int
    resolved: int


async def record(
    session: OrganizationSession, sightings: Sequence[Sighting], looked_for: Collection[Kind], keep: Collection[str] = ()
) -> Recorded:
    """What was seen is open; what was looked for and is not there any more is resolved, except about the subjects `keep`, which were
    not looked at this time.

    Safe to repeat: it is then seen once more. Appends to the audit chain: call it last in a transaction.
    """
    rows = [_row(one) for one in {(one.kind, one.subject_id): one for one in sightings}.values()]
    seen = (await session.execute(_SEE, {"o": session.organization_id, "rows": rowset(rows)})).all() if rows else []
    kinds = {"o": session.organization_id, "kinds": sorted(map(str, looked_for))}
    gone = (await session.execute(_RESOLVE, {**kinds, "seen": [row.id for row in seen], "keep": sorted(keep)})).all()
    opened = [row for row in seen if row.seen == 1]
    entries = [_audited("finding.opened", row) for row in opened] + [_audited("finding.resolved", row) for row in gone]
    await audit.append(session, entries)
    return Recorded(len(opened), len(gone))


def _row(seen: Sighting) -> dict[str, Any]:
    return {
        "id": new_id(),
        "kind": str(seen.kind),
        "severity": str(seen.severity),
        "subject_kind": seen.subject_kind,
        "subject_id": seen.subject_id,
        "journey_id": seen.journey_id,
        "runs": seen.runs,
        "cause": cause(seen),
        "action": action(seen),
        "details": dict(seen.details),
    }


def _audited(what: str, row: Any, actor: Actor | None = None, reason: str | None = None) -> NewEntry:
    details = {"kind": row.kind, "subject_kind": row.subject_kind, "subject_id": row.subject_id, "runs": row.runs}
    told = details if reason is None else {**details, "reason": reason}
    return NewEntry(what, "finding", str(row.id), details=told) if actor is None else NewEntry(what, "finding", str(row.id), actor, told)


async def touch(session: OrganizationSession, kinds: Collection[Kind], subjects: Collection[str]) -> None:
    """Their trouble is still there, as it was."""
    if subjects:
        await session.execute(_TOUCH, {"o": session.organization_id, "kinds": list(map(str, kinds)), "subjects": sorted(subjects)})


async def open_subjects(session: OrganizationSession, kinds: Collection[Kind]) -> dict[str, set[Kind]]:
    """What is open about each subject, of these kinds."""
    found: dict[str, set[Kind]] = {}
    for row in await session.execute(_OPEN, {"o": session.organization_id, "kinds": list(map(str, kinds))}):
        found.setdefault(row.subject_id, set()).add(Kind(row.kind))
    return found


@dataclass(frozen=True)
class FindingFilter:
    """None: whatever."""

    open: bool | None = None
    kind: str | None = None
    journey_id: UUID | None = None
    subject_id: str | None = None


async def page(session: OrganizationSession, wanted: FindingFilter, limit: int, after: UUID | None) -> Sequence[Finding]:
    """Up to `limit` findings that fit, oldest first, beginning after the id `after`."""
    statement = select(Finding).where(col(Finding.organization_id) == session.organization_id)
    for name in ("kind", "journey_id", "subject_id"):
        if (value := getattr(wanted, name)) is not None:
            statement = statement.where(col(getattr(Finding, name)) == value)
    if wanted.open is not None:
        resolved = col(Finding.resolved_at)
        statement = statement.where(resolved.is_(None) if wanted.open else resolved.is_not(None))
    if after is not None:
        statement = statement.where(col(Finding.id) > after)
    return (await session.execute(statement.order_by(col(Finding.id)).limit(limit))).scalars().all()


async def get(session: OrganizationSession, finding_id: UUID, *, lock: bool = False) -> Finding:
    """The finding.

    Raises:
        NotFound: no such finding in this organization.
    """
    statement = select(Finding).where(col(Finding.organization_id) == session.organization_id, col(Finding.id) == finding_id)
    found = (await session.execute(statement.with_for_update() if lock else statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("finding", finding_id)
    return found


async def acknowledge(session: OrganizationSession, finding: Finding, actor: Actor, reason: str, at: datetime | None = None) -> None:
    """Somebody knows of it; it stays open until the trouble is gone. Call it last in a transaction."""
    finding.acknowledged_at = at or utc_now()
    finding.acknowledged_by_kind, finding.acknowledged_by = actor.kind, actor.id
    finding.acknowledgement = reason
    session.add(finding)
    await session.flush()
    await audit.append(session, [_audited("finding.acknowledged", finding, actor, reason)])


_COUNT_OPEN = text(
    "SELECT severity, count(*) AS findings FROM findings WHERE organization_id = :o AND resolved_at IS NULL GROUP BY severity"
)


async def count_open(session: OrganizationSession) -> dict[str, int]:
    """How many are open, by severity."""
    return {row.severity: row.findings for row in await session.execute(_COUNT_OPEN, {"o": session.organization_id})}
