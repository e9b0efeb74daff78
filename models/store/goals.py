"""Goals, counted."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.store.session import OrganizationSession

_COUNTS = text(
    """
    SELECT v.number AS version, t.name AS goal,
      (SELECT count(*) FROM runs r WHERE r.organization_id = :o AND r.journey_id = :journey_id AND r.version_id = v.id
        AND r.replay_of IS NULL) AS runs,
      (SELECT count(*) FROM goal_hits h JOIN runs r ON r.organization_id = :o AND r.id = h.run_id AND r.replay_of IS NULL
        WHERE h.organization_id = :o AND h.version_id = v.id AND h.goal = t.name) AS reached
    FROM journey_triggers t JOIN journey_versions v ON v.organization_id = :o AND v.id = t.version_id
    WHERE t.organization_id = :o AND t.journey_id = :journey_id AND t.kind = 'goal' ORDER BY v.number, t.position
    """
)


async def counts(session: OrganizationSession, journey_id: UUID) -> Sequence[Any]:
    """By version and goal: how many runs, and how many of them reached it. A replay is no run of its own here: the first of its chain
    stands for all, whose goals count until its window is over, whatever became of it."""
    return (await session.execute(_COUNTS, {"o": session.organization_id, "journey_id": journey_id})).all()
