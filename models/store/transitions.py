"""Recording what happened to runs: timeline, projection and audit chain, in one transaction, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import Actor, NewEntry
from models.domain.journey.run import FINISHED
from models.store import audit
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id

# What auditors look for. The rest (entered, woke, chose, sent, …) is in the timeline, and sends are in the chain as deliveries.
AUDITED = frozenset(
    {
        *("parked", "cancel_requested", "paused", "resumed", "retried", "skipped", "moved", "cancelled", "exited", "completed"),
        *("jumped", "skip_requested", "jump_requested", "step_cancelled", "step_restored", "variables_changed"),
    }
)


@dataclass(frozen=True)
class NewTransition:
    """One thing that happened to a run; (run_id, sequence) identifies it. `phase` is the run's phase after it."""

    run_id: UUID
    sequence: int
    kind: str
    phase: str
    beneath: str | None  # the phase underneath a pause
    occurred_at: datetime
    step_id: str | None
    visit: int | None
    wake_at: datetime | None
    reason: str | None
    actor: Actor
    details: dict[str, Any]


_EVENTS = text(
    """
    INSERT INTO run_events (id, organization_id, run_id, sequence, kind, step_id, visit, details, occurred_at)
    SELECT a.id, :o, a.run_id, a.sequence, a.kind, a.step_id, a.visit, a.details, a.occurred_at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, run_id uuid, sequence int, kind text, step_id text, visit int,
      details jsonb, occurred_at timestamptz)
    ORDER BY a.run_id, a.sequence
    ON CONFLICT (run_id, sequence) DO NOTHING
    RETURNING id
    """
)
# Runs are found one by one by their key, whatever the planner believes of a table that has just grown. One that its replay has closed
# stays closed, whatever its workflow said before it heard of that.
_PROJECTION = text(
    """
    WITH told AS MATERIALIZED (
      SELECT a.*
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, sequence int, phase text, beneath text, step_id text,
        wake_at timestamptz, reason text, occurred_at timestamptz, cancel_requested boolean)
      CROSS JOIN LATERAL (
        SELECT r.sequence, r.replayed_by FROM runs r WHERE r.organization_id = :o AND r.id = a.run_id LIMIT 1 FOR UPDATE) r
      WHERE a.sequence > r.sequence AND r.replayed_by IS NULL
      ORDER BY a.run_id)
    UPDATE runs r SET status = a.phase, beneath = a.beneath, step_id = a.step_id, wake_at = a.wake_at, reason = a.reason,
      sequence = a.sequence,
      cancel_requested_at = coalesce(r.cancel_requested_at, CASE WHEN a.cancel_requested THEN a.occurred_at END),
      finished_at = CASE WHEN a.phase = ANY(CAST(:finished AS text[])) THEN a.occurred_at END, updated_at = clock_timestamp()
    FROM told a WHERE r.organization_id = :o AND r.id = a.run_id
    """
)

_CLOSE_WAITS = text(
    """
    UPDATE waits SET state = 'closed', closed_at = clock_timestamp()
    WHERE organization_id = :o AND run_id = ANY(CAST(:ids AS uuid[])) AND state = 'open'
    """
)


async def record(session: OrganizationSession, transitions: Sequence[NewTransition]) -> None:
    """The timeline holds each of them once, each run shows its last, and what matters to auditors is in the chain.

    Safe to repeat: a transition that is known already changes nothing. Call it last in a transaction: it locks the
    audit chain's head.
    """
    rows = [_event(one) for one in transitions]
    inserted = set((await session.execute(_EVENTS, {"o": session.organization_id, "rows": rowset(rows)})).scalars())
    latest = {one.run_id: one for one in sorted(transitions, key=lambda one: one.sequence)}
    asked = {one.run_id for one in transitions if one.kind == "cancel_requested"}
    parameters = {
        "o": session.organization_id,
        "rows": rowset([_projected(one, one.run_id in asked) for one in latest.values()]),
        "finished": [str(phase) for phase in FINISHED],
    }
    await session.execute(_PROJECTION, parameters)
    await session.execute(
        _CLOSE_WAITS, {"o": session.organization_id, "ids": [run for run, one in latest.items() if one.phase in FINISHED]}
    )
    new = [one for one, row in zip(transitions, rows, strict=True) if row["id"] in inserted]
    await audit.append(session, [_entry(one) for one in new if one.kind in AUDITED])


def _event(one: NewTransition) -> dict[str, Any]:
    told = {
        "phase": one.phase,
        "reason": one.reason,
        "wake_at": None if one.wake_at is None else one.wake_at.isoformat(),
        "actor_kind": one.actor.kind,
        "actor_id": None if one.actor.id is None else str(one.actor.id),
    }
    return {
        "id": new_id(),
        "run_id": one.run_id,
        "sequence": one.sequence,
        "kind": one.kind,
        "step_id": one.step_id,
        "visit": one.visit,
        "details": {**one.details, **{name: value for name, value in told.items() if value is not None}},
        "occurred_at": one.occurred_at,
    }


def _projected(one: NewTransition, cancel_requested: bool) -> dict[str, Any]:
    return {
        "cancel_requested": cancel_requested,
        "run_id": one.run_id,
        "sequence": one.sequence,
        "phase": one.phase,
        "beneath": one.beneath,
        "step_id": one.step_id,
        "wake_at": one.wake_at,
        "reason": one.reason,
        "occurred_at": one.occurred_at,
    }


def _entry(one: NewTransition) -> NewEntry:
    details = {"sequence": one.sequence, "step_id": one.step_id, "visit": one.visit, "reason": one.details.get("why", one.reason)}
    known = {name: value for name, value in details.items() if value is not None}
    return NewEntry(f"run.{one.kind}", "run", str(one.run_id), one.actor, known, one.occurred_at)
