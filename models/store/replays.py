"""Replays: a new run that takes an old one's place, from a step on. Each run is replayed once, so a chain has one end.

The old run is closed in the transaction that makes the new one: from its commit on, nothing of the old one is sent or done (see
`fence`, `effects` and `kept`), whatever its workflow still tries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import Actor, NewEntry
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.replay import REPLAYED, Begun
from models.domain.journey.run import FINISHED
from models.store import outbox, outside_rules
from models.store.journeys import CANCELLED_WITH
from models.store.outbox import OutboxMessage
from models.store.replay_chains import begun_with
from models.store.replay_plans import Plan, ReplayOptions
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.store.triggers import listens_to_runs
from models.tables.base import new_id, utc_now

RUNS_PER_WORKFLOW = 200

_INSERT = text(
    """
    INSERT INTO runs (id, organization_id, journey_id, version_id, campaign_id, contact_id, workflow_id, page, status, step_id, sequence,
      variables, entry_source, entry_key, entry_event_id, entry_seq, parent_run_id, hidden, request_id, replay_of, root_run_id, entered_at,
      replay, created_at, updated_at)
    SELECT a.id, :o, r.journey_id, a.version_id, r.campaign_id, r.contact_id, a.workflow_id, r.page, 'active', a.step_id, 0,
      r.variables, r.entry_source, r.entry_key, r.entry_event_id, r.entry_seq, r.parent_run_id, r.hidden, a.request_id, r.id,
      coalesce(r.root_run_id, r.id), coalesce(r.entered_at, r.created_at), a.terms, clock_timestamp(), clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, old_id uuid, version_id uuid, workflow_id text, step_id text, terms jsonb,
      request_id uuid)
    CROSS JOIN LATERAL (SELECT * FROM runs r WHERE r.organization_id = :o AND r.id = a.old_id LIMIT 1) r
    ORDER BY a.id
    """
)
# A run that needs attention is over with this, and no longer counts among what failed; one that has finished stays as it ended.
_CLOSE = text(
    """
    UPDATE runs r SET replayed_by = a.id, updated_at = clock_timestamp(),
      status = CASE WHEN r.finished_at IS NULL THEN 'exited' ELSE r.status END,
      reason = CASE WHEN r.finished_at IS NULL THEN :reason ELSE r.reason END,
      exit_reason = CASE WHEN r.finished_at IS NULL THEN :reason ELSE r.exit_reason END,
      exit_requested_at = CASE WHEN r.finished_at IS NULL THEN clock_timestamp() ELSE r.exit_requested_at END,
      finished_at = coalesce(r.finished_at, clock_timestamp()),
      failure_class = NULL, failure_fingerprint = NULL, failed_at = NULL
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, old_id uuid)
    WHERE r.organization_id = :o AND r.id = a.old_id
    """
)
_CLOSE_WAITS = text(
    """
    UPDATE waits SET state = 'closed', closed_at = clock_timestamp()
    WHERE organization_id = :o AND run_id = ANY(CAST(:ids AS uuid[])) AND state = 'open'
    """
)


@dataclass(frozen=True)
class Made:
    """A replay that exists now, active, with no transition recorded: its workflow may be started."""

    id: UUID
    old_id: UUID
    workflow_id: str


async def make(
    session: OrganizationSession, plans: Sequence[Plan], wanted: ReplayOptions, actor: Actor, request_id: UUID | None = None
) -> tuple[list[Made], list[NewEntry]]:
    """A new run for each plan, up to `RUNS_PER_WORKFLOW` of one version and campaign in a workflow, and the old ones closed; and what the
    audit chain is to be told, last in the transaction. `plans`: of runs that `load(…, lock=True)` gave. A constant number of statements
    (and a few for each rule of the journeys). Whom an exit rule about the contact ends by now leaves at once.

    The caller has taken the routing lock before anything else: see `outside_rules.begin`.
    The outbox tells the old runs' workflows, where there still are any, and starts those of the new: routing is to be woken after the
    commit. `request_id`: only for a single plan.
    """
    if not plans:
        return [], []
    made = _places(session.organization_id, plans)
    rows = [_row(one, each, wanted, actor, request_id) for one, each in zip(made, plans, strict=True)]
    await session.execute(_INSERT, {"o": session.organization_id, "rows": rowset(rows)})
    await _begin(session, plans, made)
    closing = rowset([{"id": one.id, "old_id": one.old_id} for one in made])
    await session.execute(_CLOSE, {"o": session.organization_id, "rows": closing, "reason": REPLAYED})
    closed = [each.old.id for each in plans if each.old.status not in FINISHED]
    await session.execute(_CLOSE_WAITS, {"o": session.organization_id, "ids": closed})
    first = {one.workflow_id: one.id for one in reversed(made)}
    starts = [OutboxMessage(run_id, "start") for run_id in first.values()]
    await outbox.add(session, [*(OutboxMessage(run_id, "exit", {"reason": REPLAYED}) for run_id in closed), *starts])
    return made, [entry for one, each in zip(made, plans, strict=True) for entry in _entries(one, each, wanted, actor)]


async def _begin(session: OrganizationSession, plans: Sequence[Plan], made: Sequence[Made]) -> None:
    """Nobody need be told: their workflows start with it."""
    definitions = {each.version.id: each.definition for each in plans}

    async def definition(_: OrganizationSession, version_id: UUID) -> Definition:
        return definitions[version_id]

    if any(listens_to_runs(each) for each in definitions.values()):
        await outside_rules.begin(session, definition, [one.id for one in made], utc_now(), missed=False)


def _places(organization_id: UUID, plans: Sequence[Plan]) -> list[Made]:
    """An id for each, and the workflow that carries it."""
    filling: dict[tuple[UUID, UUID | None], tuple[str, int]] = {}
    made = []
    for each in plans:
        run_id, key = new_id(), (each.version.id, each.old.campaign_id)
        name, runs = filling.get(key, ("", RUNS_PER_WORKFLOW))
        if runs == RUNS_PER_WORKFLOW:
            name, runs = workflow_id.replay(organization_id, run_id), 0
        filling[key] = (name, runs + 1)
        made.append(Made(run_id, each.old.id, name))
    return made


def _row(one: Made, plan: Plan, wanted: ReplayOptions, actor: Actor, request_id: UUID | None) -> dict[str, Any]:
    terms = {
        "from_step": plan.from_step,
        "visits": dict(plan.begun.visits),
        "visits_before": plan.begun.visits_before,
        "skips": list(plan.begun.skips),
        "version": wanted.version,
        "resend": dict(plan.again),
        "reason": wanted.reason,
        "paused": plan.old.paused,
        "actor_kind": actor.kind,
        "actor_id": None if actor.id is None else str(actor.id),
    }
    return {
        "id": one.id,
        "old_id": one.old_id,
        "version_id": plan.version.id,
        "workflow_id": one.workflow_id,
        "step_id": plan.from_step,
        "terms": terms,
        "request_id": request_id,
    }


def _entries(one: Made, plan: Plan, wanted: ReplayOptions, actor: Actor) -> list[NewEntry]:
    old = plan.old
    how = {"from_step": plan.from_step, "version_id": str(plan.version.id), "resend": sorted(plan.again), "reason": wanted.reason}
    started = {"journey_id": str(old.journey_id), "version_id": str(plan.version.id), "contact_id": str(old.contact_id)}
    return [
        NewEntry("run.replayed", "run", str(old.id), actor, {**how, "replay_id": str(one.id)}),
        NewEntry("run.started", "run", str(one.id), actor, {**started, "replay_of": str(old.id)}),
    ]


# --- starting their workflows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartingRun:
    id: UUID
    contact_id: UUID
    step_id: str
    begun: Begun
    cancelled: bool  # asked for before its workflow was started
    leaving: str | None  # a rule of the journey has ended it by then; the reason
    paused: bool  # as the run was whose place it takes


@dataclass(frozen=True)
class StartingWorkflow:
    """A workflow that is to carry replays, none of which has begun."""

    name: str
    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None
    on_error: Literal["park", "pause", "skip"]  # as its campaign says
    runs: list[StartingRun] = field(default_factory=list)


_STARTING = text(
    f"""
    SELECT r.workflow_id, r.journey_id, r.version_id, r.campaign_id, coalesce(c.on_error, 'park') AS on_error, r.id, r.contact_id,
      r.step_id, r.replay, (r.cancel_requested_at IS NOT NULL OR coalesce({CANCELLED_WITH}, false)) AS cancelled,
      CASE WHEN r.exit_requested_at IS NOT NULL THEN coalesce(r.exit_reason, 'exit_rule') END AS leaving
    FROM runs r JOIN journeys j ON j.organization_id = :o AND j.id = r.journey_id
    LEFT JOIN campaigns c ON c.organization_id = :o AND c.id = r.campaign_id
    WHERE r.organization_id = :o AND r.workflow_id = ANY(CAST(:names AS text[])) AND r.replay_of IS NOT NULL AND r.sequence = 0
      AND r.status = 'active' ORDER BY r.workflow_id, r.id
    """
)


async def starting(session: OrganizationSession, names: Sequence[str]) -> list[StartingWorkflow]:
    """Of these workflows those whose replays have not begun."""
    found: dict[str, StartingWorkflow] = {}
    for row in await session.execute(_STARTING, {"o": session.organization_id, "names": list(names)}):
        made = StartingWorkflow(row.workflow_id, row.journey_id, row.version_id, row.campaign_id, row.on_error)
        one = found.setdefault(row.workflow_id, made)
        one.runs.append(
            StartingRun(
                row.id, row.contact_id, row.step_id, begun_with(row.replay), row.cancelled, row.leaving, row.replay.get("paused", False)
            )
        )
    return list(found.values())


# --- telling of them --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """From a run to its replay, or back."""

    run_id: UUID
    at: datetime
    terms: dict[str, Any]


_REPLAY_OF = text("SELECT id, created_at, replay FROM runs WHERE organization_id = :o AND id = :id")


async def replay_of_run(session: OrganizationSession, replayed_by: UUID) -> Link | None:
    """The replay of this id; None: its contact was erased."""
    row = (await session.execute(_REPLAY_OF, {"o": session.organization_id, "id": replayed_by})).one_or_none()
    return None if row is None else Link(row.id, row.created_at, row.replay or {})
