"""What the runs of a chain have done: a run, its replay, the replay of that, and so on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.replay import Act, Arrival, Begun, Deed, Past, Remark, Trip, better
from models.store.session import OrganizationSession

_CHAIN = """FROM runs r {join}
    WHERE r.organization_id = :o AND (r.id = ANY(CAST(:roots AS uuid[])) OR r.root_run_id = ANY(CAST(:roots AS uuid[])))"""
# The newest run of each chain first.
_ARRIVALS = text(
    f"""
    SELECT coalesce(r.root_run_id, r.id) AS root, r.id, r.created_at, r.replay, e.step_id, e.visit, min(e.sequence) AS sequence
    {
        _CHAIN.format(
            join='''LEFT JOIN run_events e
      ON e.organization_id = :o AND e.run_id = r.id AND e.step_id IS NOT NULL AND e.visit IS NOT NULL'''
        )
    }
    GROUP BY r.id, e.step_id, e.visit ORDER BY r.created_at DESC, r.id DESC
    """
)
# An effect that a replay has found done is a row of its own, which says whose it was: see `kept`.
_PASTS = text(
    f"""
    SELECT coalesce(r.root_run_id, r.id) AS root, 'send' AS kind, d.step_id, d.visit, r.id AS run_id, d.state, d.reason,
      coalesce(d.settled_at, d.transmitting_at, d.claimed_at) AS at
    {_CHAIN.format(join="JOIN deliveries d ON d.organization_id = :o AND d.run_id = r.id")}
    UNION ALL
    SELECT coalesce(r.root_run_id, r.id), e.kind, e.step_id, e.visit, r.id, e.state, e.reason, coalesce(e.settled_at, e.created_at)
    {_CHAIN.format(join="JOIN effects e ON e.organization_id = :o AND e.run_id = r.id")}
      AND NOT jsonb_exists(e.details, 'kept_from')
    """
)


# The lines that say how visits and cancelled steps are counted.
_REMARKS = text(
    f"""
    SELECT r.id, e.kind, e.sequence, coalesce(e.details ->> 'to', e.step_id, '') AS step_id
    {
        _CHAIN.format(
            join='''JOIN run_events e ON e.organization_id = :o AND e.run_id = r.id
      AND (e.kind IN ('jumped', 'step_cancelled', 'step_restored')
           OR (e.kind = 'skipped' AND e.details ->> 'reason' = 'step_cancelled'))'''
        )
    }
    ORDER BY r.id, e.sequence
    """
)
_DEEDS = {"accepted": Deed.DONE, "done": Deed.DONE, "unknown": Deed.UNCERTAIN, "transmitting": Deed.UNCERTAIN}


async def chains(session: OrganizationSession, roots: Sequence[UUID]) -> dict[UUID, list[Trip]]:
    wanted = {"o": session.organization_id, "roots": list(roots)}
    arrivals: defaultdict[UUID, list[Arrival]] = defaultdict(list)
    remarks: defaultdict[UUID, list[Remark]] = defaultdict(list)
    begun: dict[UUID, tuple[UUID, Begun]] = {}  # by run: the root, and what it began with
    for row in await session.execute(_ARRIVALS, wanted):
        begun.setdefault(row.id, (row.root, begun_with(row.replay)))
        if row.step_id is not None:
            arrivals[row.id].append(Arrival(row.step_id, row.visit, row.sequence))
    for row in await session.execute(_REMARKS, wanted):
        remarks[row.id].append(Remark(row.kind, row.sequence, row.step_id))
    found: defaultdict[UUID, list[Trip]] = defaultdict(list)
    for run_id, (root, began) in begun.items():
        found[root].append(Trip(run_id, began, arrivals[run_id], remarks[run_id]))
    return found


def begun_with(terms: Mapping[str, Any] | None) -> Begun:
    """As a replay's row keeps it; a run that is none began with nothing."""
    kept = terms or {}
    return Begun(kept.get("visits", {}), kept.get("visits_before", 0), tuple(kept.get("skips", ())))


async def pasts(session: OrganizationSession, roots: Sequence[UUID]) -> dict[UUID, dict[Act, Past]]:
    """By root, what its chain has done, or may have, or has certainly not."""
    found: defaultdict[UUID, dict[Act, Past]] = defaultdict(dict)
    for row in await session.execute(_PASTS, {"o": session.organization_id, "roots": list(roots)}):
        here, act = found[row.root], (row.kind, row.step_id, row.visit)
        here[act] = better(here.get(act), Past(row.run_id, _DEEDS.get(row.state, Deed.NOT_DONE), row.at, row.reason))
    return found
