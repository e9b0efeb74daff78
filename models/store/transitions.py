"""Recording what happened to runs: timeline, projection and audit chain, in one transaction, once."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import Actor, NewEntry
from models.domain.journey.failures import Failure, failure
from models.domain.journey.interpreter import FAILED, SKIPPED_BECAUSE
from models.domain.journey.run import FINISHED, Phase
from models.store import audit, brakes, failures, waits
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id

# What auditors look for. The rest (entered, woke, chose, sent, …) is in the timeline, and sends are in the chain as deliveries.
AUDITED = frozenset(
    {
        *("parked", "cancel_requested", "paused", "resumed", "retried", "skipped", "moved", "cancelled", "exited", "completed"),
        *("jumped", "skip_requested", "jump_requested", "skip_missed", "jump_missed", "step_cancelled", "step_restored"),
    }
)

LEFT = ("skipped", "jumped")  # with the visit that was left, whatever the run did there
SAID = ("retried", "skipped", "jumped")  # with the reason for that, which is none for the pause beneath which it is done


@dataclass(frozen=True)
class NewTransition:
    """One thing that happened to a run; (run_id, sequence) identifies it. `phase` is the run's phase after it."""

    run_id: UUID
    sequence: int
    kind: str
    phase: str
    occurred_at: datetime
    step_id: str | None
    visit: int | None
    wake_at: datetime | None
    reason: str | None
    actor: Actor
    details: dict[str, Any]
    beneath: str | None = None  # the phase underneath a pause
    at_step: str | None = None  # where the run stands after it, if that is another step than the one that it tells of
    at_visit: int | None = None  # likewise, of the step that its row shows


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
# Runs are found, and locked, one by one by their key in the order given, whatever the planner believes of a table that has just grown.
# One that its replay has closed stays closed, whatever its workflow said before it heard of that. A paused run shows why it is paused
# as long as it is, whatever happens beneath: the reason of the newest pause that has not been lifted and that somebody gave one for.
_PROJECTION = text(
    """
    WITH told AS MATERIALIZED (
      SELECT a.*
      FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, sequence int, phase text, beneath text, step_id text,
        wake_at timestamptz, reason text, occurred_at timestamptz, same_failure boolean, failure_class text, fingerprint text,
        failed_at timestamptz)
      CROSS JOIN LATERAL (
        SELECT r.sequence, r.replayed_by FROM runs r WHERE r.organization_id = :o AND r.id = a.run_id LIMIT 1 FOR UPDATE) r
      WHERE a.sequence > r.sequence AND r.replayed_by IS NULL
      ORDER BY a.run_id)
    UPDATE runs r SET status = a.phase, beneath = a.beneath, step_id = a.step_id, wake_at = a.wake_at, sequence = a.sequence,
      reason = coalesce(CASE WHEN a.phase = 'paused' THEN (
        SELECT p.details ->> 'reason' FROM run_events p
        WHERE p.organization_id = :o AND p.run_id = a.run_id AND p.kind = 'paused' AND jsonb_exists(p.details, 'reason')
          AND NOT EXISTS (
            SELECT 1 FROM run_events l WHERE l.organization_id = :o AND l.run_id = a.run_id AND l.kind = 'resumed'
              AND l.sequence > p.sequence AND l.details ->> 'with' IS NOT DISTINCT FROM p.details ->> 'with')
        ORDER BY p.sequence DESC LIMIT 1) END, a.reason),
      failure_class = CASE WHEN a.same_failure THEN r.failure_class ELSE a.failure_class END,
      failure_fingerprint = CASE WHEN a.same_failure THEN r.failure_fingerprint ELSE a.fingerprint END,
      failed_at = CASE WHEN a.same_failure THEN r.failed_at ELSE a.failed_at END,
      finished_at = CASE WHEN a.phase = ANY(CAST(:finished AS text[])) THEN a.occurred_at END, updated_at = clock_timestamp()
    FROM told a WHERE r.organization_id = :o AND r.id = a.run_id
    """
)
# Whatever has been recorded since: the last check before a send must find it. The projection has locked all of the rows.
_CANCEL_REQUESTED = text(
    """
    UPDATE runs r SET cancel_requested_at = a.occurred_at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, occurred_at timestamptz)
    WHERE r.organization_id = :o AND r.id = a.run_id AND r.cancel_requested_at IS NULL AND r.finished_at IS NULL AND r.replayed_by IS NULL
    """
)
_CLOSE_WAITS = text(
    """
    UPDATE waits SET state = 'closed', closed_at = clock_timestamp()
    WHERE organization_id = :o AND run_id = ANY(CAST(:ids AS uuid[])) AND state = 'open'
    """
)


async def record(session: OrganizationSession, journey_id: UUID, transitions: Sequence[NewTransition]) -> list[UUID]:
    """The timeline holds each of them once, each run of the journey shows its last (and, where it needs attention, the class and
    fingerprint of why), and what matters to auditors is in the chain. Answers
    the ids of brakings: campaigns that were to pause at the first failure, and do so now.

    Safe to repeat: a transition that is known already changes nothing. Call it last in a transaction: it locks the
    audit chain's head.
    """
    failed = {(one.run_id, one.sequence): failure(journey_id, one.step_id, one.reason) for one in transitions if has_failed(one)}
    rows = [_event(one, failed.get((one.run_id, one.sequence))) for one in transitions]
    inserted = set((await session.execute(_EVENTS, {"o": session.organization_id, "rows": rowset(rows)})).scalars())
    parameters = {
        "o": session.organization_id,
        "rows": rowset([_projected(history, failed) for history in _by_run(transitions)]),
        "finished": [str(phase) for phase in FINISHED],
    }
    await session.execute(_PROJECTION, parameters)
    if asked := {one.run_id: one.occurred_at for one in transitions if one.kind == "cancel_requested"}:
        rows_asked = [{"run_id": run_id, "occurred_at": at} for run_id, at in asked.items()]
        await session.execute(_CANCEL_REQUESTED, {"o": session.organization_id, "rows": rowset(rows_asked)})
    latest = {one.run_id: one for one in sorted(transitions, key=lambda one: one.sequence)}
    await session.execute(
        _CLOSE_WAITS, {"o": session.organization_id, "ids": [run for run, one in latest.items() if one.phase in FINISHED]}
    )
    new = [one for one, row in zip(transitions, rows, strict=True) if row["id"] in inserted]
    await waits.leave(session, [(one.run_id, one.step_id, one.visit) for one in new if one.kind in LEFT and one.step_id and one.visit])
    await failures.seen(session, journey_id, [(failed[key], one) for one in new if (key := (one.run_id, one.sequence)) in failed])
    braked = await brakes.parked(session, {one.run_id for one in new if one.kind == "parked"})
    await audit.append(session, [*(_entry(one) for one in new if one.kind in AUDITED), *(one.entry for one in braked)])
    return [one.id for one in braked]


def has_failed(one: NewTransition) -> bool:
    """Whether it tells of a step that has failed for good: the run parked, or went on without it."""
    return one.kind == "parked" or one.details.get(SKIPPED_BECAUSE) == FAILED


def _by_run(transitions: Sequence[NewTransition]) -> list[list[NewTransition]]:
    """Each run's, in their order; the runs in the order in which everybody locks them."""
    found: defaultdict[UUID, list[NewTransition]] = defaultdict(list)
    for one in sorted(transitions, key=lambda one: (one.run_id, one.sequence)):
        found[one.run_id].append(one)
    return list(found.values())


def _event(one: NewTransition, failed: Failure | None) -> dict[str, Any]:
    told = {
        "phase": one.phase,
        "at_visit": one.at_visit,
        "reason": one.reason,
        "wake_at": None if one.wake_at is None else one.wake_at.isoformat(),
        "actor_kind": one.actor.kind,
        "actor_id": None if one.actor.id is None else str(one.actor.id),
        "failure_class": None if failed is None else str(failed.failure_class),
        "failure_fingerprint": None if failed is None else failed.fingerprint,
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


def _projected(history: Sequence[NewTransition], failed: Mapping[tuple[UUID, int], Failure]) -> dict[str, Any]:
    last = history[-1]
    return {
        "run_id": last.run_id,
        "sequence": last.sequence,
        "phase": last.phase,
        "beneath": last.beneath,
        "step_id": last.at_step or last.step_id,
        "wake_at": last.wake_at,
        "reason": None if last.beneath is not None and last.kind in SAID else last.reason,
        "occurred_at": last.occurred_at,
        **_failure_after(history, failed),
    }


def _failure_after(history: Sequence[NewTransition], failed: Mapping[tuple[UUID, int], Failure]) -> dict[str, Any]:
    """What the run's row says of its failure: that of its newest parking, nothing once it goes on, or the same as before."""
    for one in reversed(history):
        if one.kind == "parked":
            found = failed[one.run_id, one.sequence]
            return {"failure_class": found.failure_class, "fingerprint": found.fingerprint, "failed_at": one.occurred_at}
        if (one.beneath or one.phase) != Phase.NEEDS_ATTENTION:  # a pause only hides it
            return {}
    return {"same_failure": True}


def _entry(one: NewTransition) -> NewEntry:
    details = {"sequence": one.sequence, "step_id": one.step_id, "visit": one.visit, "reason": one.details.get("why", one.reason)}
    known = {name: value for name, value in details.items() if value is not None}
    return NewEntry(f"run.{one.kind}", "run", str(one.run_id), one.actor, known, one.occurred_at)
