"""The causes for which runs have parked, and how many stand there for each of them now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.failures import Failure, FailureClass
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id


class Seen(Protocol):
    """What happened to a run."""

    @property
    def step_id(self) -> str | None: ...

    @property
    def occurred_at(self) -> datetime: ...


# In the order of fingerprints, so that two writers of the same ones do not deadlock.
_SEEN = text(
    """
    INSERT INTO failure_groups AS g (id, organization_id, fingerprint, journey_id, step_id, failure_class, reason, provider_code, seen,
      first_seen_at, last_seen_at)
    SELECT a.id, :o, a.fingerprint, :journey_id, a.step_id, a.failure_class, a.reason, a.provider_code, a.seen, a.first, a.last
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, fingerprint text, step_id text, failure_class text, reason text,
      provider_code text, seen bigint, first timestamptz, last timestamptz)
    ORDER BY a.fingerprint
    ON CONFLICT (organization_id, fingerprint) DO UPDATE SET seen = g.seen + EXCLUDED.seen,
      first_seen_at = least(g.first_seen_at, EXCLUDED.first_seen_at), last_seen_at = greatest(g.last_seen_at, EXCLUDED.last_seen_at)
    """
)


async def seen(session: OrganizationSession, journey_id: UUID, found: Sequence[tuple[Failure, Seen]]) -> None:
    """The causes of these failures, each of which is told here once, are known. One statement, none where nothing failed."""
    groups: dict[str, dict[str, Any]] = {}
    for failed, told in found:
        group = groups.setdefault(
            failed.fingerprint,
            {
                "id": new_id(),
                "fingerprint": failed.fingerprint,
                "step_id": told.step_id,
                "failure_class": str(failed.failure_class),
                "reason": failed.reason,
                "provider_code": failed.provider_code,
                "seen": 0,
                "first": told.occurred_at,
                "last": told.occurred_at,
            },
        )
        group["seen"] += 1
        group["first"], group["last"] = min(group["first"], told.occurred_at), max(group["last"], told.occurred_at)
    if groups:
        await session.execute(_SEEN, {"o": session.organization_id, "journey_id": journey_id, "rows": rowset(list(groups.values()))})


@dataclass(frozen=True)
class FailureFilter:
    """None: whatever. `present`: only causes for which some run (of the campaign, if one is named) needs attention now."""

    journey_id: UUID | None = None
    campaign_id: UUID | None = None
    failure_class: FailureClass | None = None
    present: bool = True


@dataclass(frozen=True)
class Group:
    """A cause. `runs`: how many need attention for it now, of the versions `versions`; `seen`: how often a run ever failed for it."""

    id: UUID
    fingerprint: str
    journey_id: UUID
    step_id: str | None
    failure_class: str
    reason: str
    provider_code: str | None
    seen: int
    first_seen_at: datetime
    last_seen_at: datetime
    runs: int
    versions: list[int]
    sample_run_id: UUID | None


_PAGE = """
    SELECT g.id, g.fingerprint, g.journey_id, g.step_id, g.failure_class, g.reason, g.provider_code, g.seen, g.first_seen_at,
           g.last_seen_at, n.runs, n.versions, n.sample_run_id
    FROM failure_groups g
    CROSS JOIN LATERAL (
      SELECT CAST(coalesce(sum(p.runs), 0) AS bigint) AS runs,
             coalesce(array_agg(v.number ORDER BY v.number) FILTER (WHERE v.id IS NOT NULL), '{{}}') AS versions,
             (SELECT r.id FROM runs r WHERE {these} ORDER BY r.id DESC LIMIT 1) AS sample_run_id
      FROM (SELECT r.version_id, count(*) AS runs FROM runs r WHERE {these} GROUP BY r.version_id) p
      LEFT JOIN journey_versions v ON v.organization_id = :o AND v.id = p.version_id) n
    WHERE g.organization_id = :o AND {wanted}
    ORDER BY g.id LIMIT :limit
"""


async def page(session: OrganizationSession, wanted: FailureFilter, limit: int, after: UUID | None) -> list[Group]:
    """Up to `limit` causes, the one that was seen first, first; beginning after the id `after`. One statement."""
    these = "r.organization_id = :o AND r.failure_fingerprint = g.fingerprint"
    conditions, parameters = ["TRUE"], {"o": session.organization_id, "limit": limit}
    if wanted.campaign_id is not None:
        these += " AND r.campaign_id = :campaign_id"
        parameters["campaign_id"] = wanted.campaign_id
    for name, value in (("journey_id", wanted.journey_id), ("failure_class", wanted.failure_class)):
        if value is not None:
            conditions.append(f"g.{name} = :{name}")
            parameters[name] = value
    if after is not None:
        conditions.append("g.id > :after")
        parameters["after"] = after
    if wanted.present:
        conditions.append("n.runs > 0")
    query = text(_PAGE.format(these=these, wanted=" AND ".join(conditions)))
    return [Group(**row) for row in (await session.execute(query, parameters)).mappings()]
