"""The claim ledger of effects: one row per visit of a run to a step that does something, claimed before it is done. A run that a publish
plan has moved to a step of the same name that does something else has another row there.

    claimed ──settle──> done | refused | failed
       │  ^ └──pass──> transmitting ──settle──> done | failed | unknown      (only where it must happen at most once)
       └──┘ settle(claimed): certainly not done, to be tried again

Who claims a row raises `attempts`; only the claim that raised it last passes and settles it. `failed` was certainly not done, or may
be done again: asking once more claims it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import NewEntry
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id


@dataclass(frozen=True)
class Visit:
    """A run at a step that does something."""

    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int


@dataclass(frozen=True)
class Claimed:
    """The caller's now. `attempts` counts this claim; `details` are of the one before."""

    id: UUID
    run_id: UUID
    attempts: int
    details: dict[str, Any]


@dataclass(frozen=True)
class EffectRow:
    """A row that is nobody's to claim."""

    run_id: UUID
    state: str
    reason: str | None
    details: dict[str, Any]


# A run whose row is gone (its contact was erased), or that has been replayed, claims nothing: the row's lock lets a replay wait for
# what is being done, and what comes after it finds the run replayed. In the order of runs, so that two attempts do not deadlock.
_CLAIM = text(
    """
    INSERT INTO effects AS e (id, organization_id, run_id, contact_id, step_id, visit, kind, state, details, attempts)
    SELECT a.id, :o, a.run_id, a.contact_id, a.step_id, a.visit, :kind, 'claimed', '{}', 1
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, run_id uuid, contact_id uuid, step_id text, visit int)
    CROSS JOIN LATERAL (
      SELECT r.id FROM runs r WHERE r.organization_id = :o AND r.id = a.run_id AND r.replayed_by IS NULL LIMIT 1 FOR KEY SHARE) r
    ORDER BY a.run_id
    ON CONFLICT (run_id, step_id, visit, kind) DO UPDATE SET state = 'claimed', reason = NULL, settled_at = NULL, attempts = e.attempts + 1
    WHERE e.state IN ('claimed', 'failed')
    RETURNING e.id, e.run_id, e.attempts, e.details
    """
)


async def claim(session: OrganizationSession, kind: str, visits: Sequence[Visit]) -> dict[UUID, Claimed]:
    """By run, the rows that are this caller's until somebody claims them again. Not among them: what is settled or under way, see
    `standings`, and runs that are no more.

    Another transaction that holds a row is waited for: where claim and effect are one transaction, the effect happens once.
    """
    rows = rowset([{"id": new_id(), **vars(one)} for one in sorted(visits, key=lambda one: one.run_id)])
    found = await session.execute(_CLAIM, {"o": session.organization_id, "kind": kind, "rows": rows})
    return {row.run_id: Claimed(row.id, row.run_id, row.attempts, row.details) for row in found}


_STANDINGS = text(
    """
    SELECT e.run_id, e.state, e.reason, e.details
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, step_id text, visit int)
    CROSS JOIN LATERAL (
      SELECT * FROM effects e
      WHERE e.organization_id = :o AND e.run_id = a.run_id AND e.step_id = a.step_id AND e.visit = a.visit AND e.kind = :kind LIMIT 1) e
    """
)


async def standings(session: OrganizationSession, kind: str, visits: Sequence[Visit]) -> dict[UUID, EffectRow]:
    """The rows of these visits, by run; runs that are no more are left out."""
    if not visits:
        return {}
    found = await session.execute(_STANDINGS, {"o": session.organization_id, "kind": kind, "rows": _keys(visits)})
    return {row.run_id: EffectRow(**row._mapping) for row in found}


_PASS = text(
    """
    UPDATE effects SET state = 'transmitting'
    WHERE organization_id = :o AND id = :id AND attempts = :attempts AND state = 'claimed' RETURNING id
    """
)


async def let_pass(session: OrganizationSession, claimed: Claimed) -> bool:
    """Once this transaction commits, the effect may have happened, and no other attempt does it. False: the row is another's by now.

    Not safe to repeat: whoever does not hear the answer must not go on.
    """
    parameters = {"o": session.organization_id, "id": claimed.id, "attempts": claimed.attempts}
    return (await session.scalar(_PASS, parameters)) is not None


_ABANDON = text(
    """
    WITH lost AS MATERIALIZED (
      SELECT e.id FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, step_id text, visit int)
      CROSS JOIN LATERAL (
        SELECT e.id, e.state FROM effects e
        WHERE e.organization_id = :o AND e.run_id = a.run_id AND e.step_id = a.step_id AND e.visit = a.visit AND e.kind = :kind
        LIMIT 1 FOR UPDATE) e
      WHERE e.state = 'transmitting')
    UPDATE effects e SET state = 'unknown', reason = 'attempt_lost', settled_at = clock_timestamp()
    WHERE e.organization_id = :o AND e.id = ANY(ARRAY(SELECT id FROM lost))
    RETURNING e.id, e.run_id, e.contact_id, e.step_id, e.visit, e.kind, e.state, e.reason
    """
)


async def abandon(session: OrganizationSession, kind: str, visits: Sequence[Visit]) -> "list[Settled]":
    """What another attempt was doing when Temporal gave it up is `unknown`. It may still say better later."""
    found = await session.execute(_ABANDON, {"o": session.organization_id, "kind": kind, "rows": _keys(visits)})
    return [Settled(**row._mapping) for row in found]


def _keys(visits: Sequence[Visit]) -> str:
    ordered = sorted(visits, key=lambda one: one.run_id)
    return rowset([{"run_id": one.run_id, "step_id": one.step_id, "visit": one.visit} for one in ordered])


@dataclass(frozen=True)
class Settlement:
    """What is known of an effect now. `details` hold ids and codes only."""

    claimed: Claimed
    state: str  # done | refused | failed | unknown; claimed: to be tried again
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


_SETTLE = text(
    """
    WITH told AS MATERIALIZED (
      SELECT a.*
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, attempts int, state text, reason text, details jsonb)
      CROSS JOIN LATERAL (
        SELECT e.attempts, e.state FROM effects e WHERE e.organization_id = :o AND e.id = a.id LIMIT 1 FOR UPDATE) e
      WHERE e.attempts = a.attempts
        AND (e.state IN ('claimed', 'transmitting') OR (e.state = 'unknown' AND a.state IN ('done', 'failed'))))
    UPDATE effects e SET state = a.state, reason = a.reason, details = a.details,
      settled_at = CASE a.state WHEN 'claimed' THEN NULL ELSE clock_timestamp() END
    FROM told a WHERE e.organization_id = :o AND e.id = a.id AND e.id = ANY(ARRAY(SELECT id FROM told))
    RETURNING e.id, e.run_id, e.contact_id, e.step_id, e.visit, e.kind, e.state, e.reason
    """
)


@dataclass(frozen=True)
class Settled:
    """A row as it stands after it was settled."""

    id: UUID
    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int
    kind: str
    state: str
    reason: str | None

    def entry(self) -> NewEntry:
        """For the audit chain: effect.done, effect.refused, effect.failed or effect.unknown."""
        details = {
            "kind": self.kind,
            "run_id": str(self.run_id),
            "contact_id": str(self.contact_id),
            "step_id": self.step_id,
            "visit": self.visit,
            "reason": self.reason,
        }
        return NewEntry(f"effect.{self.state}", "effect", str(self.id), details=details)


async def settle(session: OrganizationSession, settlements: Sequence[Settlement]) -> list[Settled]:
    """The rows are as these say, where they are still the claimer's; answers those.

    Safe to repeat: what is settled stays, except that an answer heard late replaces `unknown`.
    """
    rows = [_row(one) for one in sorted(settlements, key=lambda one: one.claimed.run_id)]  # the order of `claim`: no deadlock
    found = await session.execute(_SETTLE, {"o": session.organization_id, "rows": rowset(rows)})
    return [Settled(**row._mapping) for row in found]


def _row(one: Settlement) -> dict[str, Any]:
    return {
        "id": one.claimed.id,
        "attempts": one.claimed.attempts,
        "state": one.state,
        "reason": one.reason,
        "details": dict(one.details),
    }
