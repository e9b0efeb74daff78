"""What a replay need not do, because another run of its chain has done it, or may have. Asked for replays only (`Scope.replay`).

A row of another run that is still `claimed` was certainly not handed over: it is taken from its owner here, under the row's lock, so
that nobody hands it over any more. One that is being handed over counts as uncertain. So of two runs of a chain never both send.

What was done for a later visit counts as well, and what a step of another kind did does not, as `models.domain.journey.replay.met` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from models.domain.audit import NewEntry
from models.domain.journey.replay import REPLAYED
from models.store.deliveries import Settled
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id

# For each place the other runs of the chain, unless somebody has asked for exactly this to be done again. In the order of runs. One that
# has been replayed itself asks in vain: it does nothing any more.
_OTHERS = """
    asked AS MATERIALIZED (
      SELECT a.run_id, a.contact_id, a.kind, a.step_id, a.visit, a.loops, r.root_run_id
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, contact_id uuid, kind text, step_id text, visit int, loops boolean)
      CROSS JOIN LATERAL (
        SELECT r.root_run_id, r.replay FROM runs r
        WHERE r.organization_id = :o AND r.id = a.run_id AND r.replay_of IS NOT NULL AND r.replayed_by IS NULL LIMIT 1) r
      WHERE CAST(r.replay #>> ARRAY['resend', a.step_id] AS int) IS DISTINCT FROM a.visit),
    others AS MATERIALIZED (
      SELECT asked.*, o.id AS other_id FROM asked CROSS JOIN LATERAL (
        SELECT asked.root_run_id AS id
        UNION ALL
        SELECT r.id FROM runs r WHERE r.organization_id = :o AND r.root_run_id = asked.root_run_id AND r.id <> asked.run_id) o
      ORDER BY o.id)"""
# Found by their runs, whatever the planner believes, and locked in the order of ids, as by everybody else. What they say is read with the
# locks: a look beside them sees what was before they were waited for.
_SENT = text(
    f"""
    WITH {_OTHERS},
    locked AS MATERIALIZED (
      SELECT d.id, d.run_id AS other_id, d.step_id, d.visit, d.state, d.reason,
        coalesce(d.settled_at, d.transmitting_at, d.claimed_at) AS at,
        coalesce(d.transmitting_at > clock_timestamp() - CAST(:lease AS interval), false) AS fresh
      FROM deliveries d
      WHERE d.organization_id = :o AND d.id = ANY(ARRAY(
        SELECT e.id FROM others o CROSS JOIN LATERAL (
          SELECT d.id FROM deliveries d
          WHERE d.organization_id = :o AND d.run_id = o.other_id AND d.step_id = o.step_id AND d.visit >= o.visit OFFSET 0) e))
      ORDER BY d.id FOR UPDATE),
    found AS MATERIALIZED (
      SELECT o.run_id, o.loops, l.*, l.visit = o.visit AS exact
      FROM others o JOIN locked l ON l.other_id = o.other_id AND l.step_id = o.step_id AND l.visit >= o.visit),
    taken AS (
      UPDATE deliveries d SET state = 'failed', outcome = 'refused', reason = '{REPLAYED}', attempt = NULL, settled_at = clock_timestamp()
      WHERE d.organization_id = :o AND d.id = ANY(ARRAY(SELECT id FROM found WHERE state = 'claimed'))
      RETURNING d.id, d.contact_id, d.step_id, d.visit, d.outcome, d.journey_id, d.campaign_id)
    SELECT f.run_id AS asking, f.id, f.other_id, f.state, f.reason, f.at, f.fresh,
      t.contact_id, t.step_id, t.visit, t.outcome, t.journey_id, t.campaign_id
    FROM found f LEFT JOIN taken t ON t.id = f.id
    WHERE f.state = 'claimed' OR (f.state IN ('accepted', 'unknown', 'transmitting')
      AND (f.exact OR NOT f.loops OR NOT EXISTS (SELECT 1 FROM found x WHERE x.run_id = f.run_id AND x.exact)))
    ORDER BY f.run_id, f.state <> 'accepted', f.visit, f.at
    """
)


@dataclass(frozen=True)
class Message:
    """A message that a run need not send. Not `certain`: it may have been accepted; `open`: it is just being handed over."""

    delivery_id: UUID
    sent_by: UUID  # the run
    at: datetime
    certain: bool
    open: bool
    reason: str | None


@dataclass(frozen=True)
class Asked:
    """`kind`: of the step. `loops`: it can be come to twice."""

    run_id: UUID
    contact_id: UUID
    kind: str
    step_id: str
    visit: int
    loops: bool


async def sent(session: OrganizationSession, asked: Sequence[Asked], lease: timedelta) -> tuple[dict[UUID, Message], list[NewEntry]]:
    """By run, the messages that another run of its chain has sent or may have sent, and what the audit chain is to be told, last in the
    transaction. One statement. Safe to repeat. What was handed over longer than `lease` ago, and never settled, is uncertain."""
    rows = await session.execute(_SENT, {"o": session.organization_id, "rows": _rows(asked), "lease": lease})
    found: dict[UUID, Message] = {}
    entries: list[NewEntry] = []
    for row in rows:
        if row.state == "claimed":
            entries.append(_taken(row).entry())
        elif row.asking not in found:
            lost = row.state == "transmitting" and not row.fresh
            open_, reason = row.state == "transmitting" and row.fresh, "attempt_lost" if lost else row.reason
            found[row.asking] = Message(row.id, row.other_id, row.at, row.state == "accepted", open_, reason)
    return found, entries


def _taken(row: Row[Any]) -> Settled:
    return Settled(
        id=row.id,
        run_id=row.other_id,
        contact_id=row.contact_id,
        step_id=row.step_id,
        visit=row.visit,
        state="failed",
        outcome=row.outcome,
        reason=REPLAYED,
        journey_id=row.journey_id,
        campaign_id=row.campaign_id,
    )


# `attempts` is raised, so that whoever had claimed the row neither passes nor settles it.
_TAKE_EFFECTS = text(
    f"""
    WITH {_OTHERS},
    found AS MATERIALIZED (
      SELECT e.id FROM others o CROSS JOIN LATERAL (
        SELECT e.id, e.state FROM effects e
        WHERE e.organization_id = :o AND e.run_id = o.other_id AND e.step_id = o.step_id AND e.kind = o.kind AND e.visit >= o.visit
        ORDER BY e.id FOR UPDATE) e
      WHERE e.state = 'claimed')
    UPDATE effects e SET state = 'failed', reason = '{REPLAYED}', attempts = e.attempts + 1, settled_at = clock_timestamp()
    WHERE e.organization_id = :o AND e.id = ANY(ARRAY(SELECT id FROM found))
    """
)
# What was done becomes the run's own, with whose it was. What was uncertain does, too, until it is known.
_ADOPT = text(
    f"""
    WITH {_OTHERS},
    here AS MATERIALIZED (
      SELECT DISTINCT o.run_id, o.step_id, o.visit FROM others o JOIN effects e
        ON e.organization_id = :o AND e.run_id = o.other_id AND e.step_id = o.step_id AND e.kind = o.kind AND e.visit = o.visit),
    found AS MATERIALIZED (
      SELECT DISTINCT ON (o.run_id, o.step_id, o.visit) o.run_id, o.contact_id, o.step_id, o.visit, e.*
      FROM others o CROSS JOIN LATERAL (
        SELECT e.visit AS done_at, e.kind, CASE e.state WHEN 'done' THEN 'done' ELSE 'unknown' END AS state, e.reason, e.attempts,
          e.details || jsonb_build_object(
            'kept_from', coalesce(e.details ->> 'kept_from', CAST(e.run_id AS text)),
            'kept_at', coalesce(e.details ->> 'kept_at', to_char(coalesce(e.settled_at, e.created_at) AT TIME ZONE 'UTC',
                                                                 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'))) AS details
        FROM effects e
        WHERE e.organization_id = :o AND e.run_id = o.other_id AND e.step_id = o.step_id AND e.kind = o.kind AND e.visit >= o.visit
          AND e.state IN ('done', 'unknown', 'transmitting')) e
      WHERE e.done_at = o.visit OR NOT o.loops OR (o.run_id, o.step_id, o.visit) NOT IN (SELECT run_id, step_id, visit FROM here)
      ORDER BY o.run_id, o.step_id, o.visit, e.state, e.done_at)
    INSERT INTO effects AS mine (id, organization_id, run_id, contact_id, step_id, visit, kind, state, reason, details, attempts,
      settled_at)
    SELECT a.id, :o, f.run_id, f.contact_id, f.step_id, f.visit, f.kind, f.state,
      CASE f.state WHEN 'unknown' THEN coalesce(f.reason, 'attempt_lost') END, f.details, f.attempts, clock_timestamp()
    FROM found f JOIN jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, run_id uuid) ON a.run_id = f.run_id
    ORDER BY f.run_id
    ON CONFLICT (run_id, step_id, visit, kind) DO UPDATE SET state = EXCLUDED.state, reason = EXCLUDED.reason, details = EXCLUDED.details
    WHERE mine.state = 'unknown' AND mine.details ? 'kept_from'
    """
)


async def adopt_effects(session: OrganizationSession, asked: Sequence[Asked]) -> None:
    """What another run of the chain did at these places is settled as the run's own, so that its claim finds it settled. Two statements.

    Safe to repeat; what was uncertain becomes what is known by then.
    """
    parameters = {"o": session.organization_id, "rows": _rows(asked)}
    await session.execute(_TAKE_EFFECTS, parameters)
    await session.execute(_ADOPT, parameters)


_ROOTS = text(
    """
    SELECT id, root_run_id, replay -> 'resend' AS resend FROM runs
    WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[])) AND replay_of IS NOT NULL
    """
)


@dataclass(frozen=True)
class Root:
    """The first run of a replay's chain, and the steps (with the visit) that are done once more."""

    run_id: UUID
    resend: Mapping[str, int]


async def roots(session: OrganizationSession, run_ids: Sequence[UUID]) -> dict[UUID, Root]:
    """By run, for those that are replays."""
    rows = await session.execute(_ROOTS, {"o": session.organization_id, "ids": list(run_ids)})
    return {row.id: Root(row.root_run_id, row.resend or {}) for row in rows}


def _rows(asked: Sequence[Asked]) -> str:
    rows: list[dict[str, Any]] = [{"id": new_id(), **vars(one)} for one in sorted(asked, key=lambda one: one.run_id)]
    return rowset(rows)
