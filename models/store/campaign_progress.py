"""How far campaigns have come: counts, never rows."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.run import FINISHED, Phase
from models.store.session import OrganizationSession

# A run that has been replayed is represented by its replay: one run for each contact.
_RUNS = text("""
    SELECT campaign_id, status, count(*) FROM runs
    WHERE organization_id = :organization_id AND campaign_id = ANY(:ids) AND replayed_by IS NULL GROUP BY campaign_id, status""")
_DELIVERIES = text("""
    SELECT campaign_id, state, outcome, count(*) FROM deliveries
    WHERE organization_id = :organization_id AND campaign_id = ANY(:ids) GROUP BY campaign_id, state, outcome""")
# A refusal is one (run, step, visit): decided before the claim, or found by the last check at the claim.
_REFUSALS = text("""
    SELECT campaign_id, reason, count(*) FROM (
        SELECT r.campaign_id, d.run_id, d.step_id, d.visit, d.reason
        FROM runs r JOIN decisions d ON d.run_id = r.id
        WHERE r.organization_id = :organization_id AND r.campaign_id = ANY(:ids) AND d.outcome = 'refuse'
        UNION
        SELECT campaign_id, run_id, step_id, visit, reason FROM deliveries
        WHERE organization_id = :organization_id AND campaign_id = ANY(:ids) AND state = 'refused'
    ) refused GROUP BY campaign_id, reason""")

_LEFT_OUT = text("""
    SELECT c.id, l.key, CAST(l.value AS bigint) FROM campaigns c CROSS JOIN LATERAL jsonb_each_text(c.left_out) AS l
    WHERE c.organization_id = :organization_id AND c.id = ANY(:ids) AND jsonb_typeof(c.left_out) = 'object'""")


@dataclass(frozen=True)
class Progress:
    """Counts of one campaign. `runs` by phase (every phase present), `deliveries` by state and by outcome,
    `refusals` by reason, and contacts that fit but were not taken (`left_out`) by reason."""

    runs: dict[str, int] = field(default_factory=lambda: {str(phase): 0 for phase in Phase})
    deliveries: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def accounted_for(self) -> int:
        """The right side of the conservation equation: the sum over all phases."""
        return sum(self.runs.values())

    @property
    def unfinished(self) -> int:
        return sum(count for phase, count in self.runs.items() if phase not in FINISHED)


async def progress(session: OrganizationSession, campaign_ids: Sequence[UUID]) -> dict[UUID, Progress]:
    """The progress of each of these campaigns, by id. Four statements, however many campaigns and runs."""
    bound = {"organization_id": session.organization_id, "ids": list(campaign_ids)}
    found: dict[UUID, Progress] = defaultdict(Progress)
    for campaign_id, status, count in await session.execute(_RUNS, bound):
        found[campaign_id].runs[status] = count
    for campaign_id, state, outcome, count in await session.execute(_DELIVERIES, bound):
        _add(found[campaign_id].deliveries, state, count)
        _add(found[campaign_id].outcomes, outcome or "open", count)
    for campaign_id, reason, count in await session.execute(_REFUSALS, bound):
        _add(found[campaign_id].refusals, reason or "unknown", count)
    for campaign_id, reason, count in await session.execute(_LEFT_OUT, bound):
        found[campaign_id].left_out[reason] = count
    return {campaign_id: found[campaign_id] for campaign_id in campaign_ids}


def _add(counts: dict[str, int], key: str, count: int) -> None:
    counts[key] = counts.get(key, 0) + count
