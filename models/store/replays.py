"""Replays: a new run that takes an old one's place, from a step on. Each run is replayed once, so a chain has one end.

The old run is closed in the transaction that makes the new one: from its commit on, nothing of the old one is sent or done (see
`fence`, `effects` and `kept`), whatever its workflow still tries.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import Actor, NewEntry
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.replay import (
    Ahead,
    Arrival,
    Begun,
    Deed,
    Past,
    Place,
    Remark,
    Standing,
    Trip,
    begin_at,
    better,
    forecast,
)
from models.domain.journey.run import FINISHED, Phase
from models.store import journey_versions, outbox
from models.store.outbox import Told
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.journeys import JourneyVersion

VersionChoice = Literal["original", "current"]
REPLAYED = "replayed"  # why the old run ends
REPLAYABLE = FINISHED | {Phase.NEEDS_ATTENTION}
RUNS_PER_WORKFLOW = 200


@dataclass(frozen=True)
class Wanted:
    """What is asked for. `from_step` None: each run's, where it stopped. `resend`: steps whose effect is to be done again although it
    was done, or may have been; `strict`: a run of which nothing was done there is refused."""

    from_step: str | None = None
    version: VersionChoice = "original"
    resend: frozenset[str] = frozenset()
    reason: str = ""
    strict: bool = True


def wanted_of(arguments: Mapping[str, Any], reason: str) -> Wanted:
    """What an operation on many runs asks of each: what was done there is done again, the rest anyway."""
    version: VersionChoice = "current" if arguments.get("version") == "current" else "original"
    return Wanted(arguments.get("from_step"), version, frozenset(arguments.get("resend", ())), reason, strict=False)


@dataclass(frozen=True)
class Old:
    """A run that is to be replayed, as it stands."""

    id: UUID
    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None
    contact_id: UUID
    status: str
    step_id: str | None
    root_id: UUID
    replayed_by: UUID | None
    leaving: bool  # a rule of the journey has ended it, and its workflow has not said so (and may be gone)
    cancelling: bool  # likewise, by an operator's word
    journey_archived: bool
    campaign_cancelled: bool


@dataclass(frozen=True)
class Plan:
    """How one run is replayed. `ahead`: what becomes of every effect."""

    old: Old
    version: JourneyVersion
    original: JourneyVersion
    definition: Definition
    from_step: str
    begun: Begun
    ahead: Sequence[Ahead]
    again: Mapping[str, int]  # steps that are asked for once more, with the visit


@dataclass(frozen=True)
class Refusal:
    """Why a run cannot be replayed: not_over, replayed_already, run_left, run_cancelled, journey_archived, campaign_cancelled,
    unknown_step or nothing_to_resend. `steps`: that there are, or that can be sent again."""

    old: Old
    code: str
    version: JourneyVersion | None = None
    original: JourneyVersion | None = None
    step: str | None = None
    steps: Sequence[str] = ()


_LOAD = """
    SELECT r.id, r.journey_id, r.version_id, r.campaign_id, r.contact_id, r.status, r.step_id, coalesce(r.root_run_id, r.id) AS root_id,
      r.replayed_by, r.finished_at IS NULL AND r.exit_requested_at IS NOT NULL AS leaving,
      r.finished_at IS NULL AND r.cancel_requested_at IS NOT NULL AS cancelling,
      j.archived_at IS NOT NULL AS journey_archived, c.cancelled_at IS NOT NULL AS campaign_cancelled
    FROM runs r JOIN journeys j ON j.organization_id = :o AND j.id = r.journey_id
    LEFT JOIN campaigns c ON c.organization_id = :o AND c.id = r.campaign_id
    WHERE r.organization_id = :o AND r.id = ANY(CAST(:ids AS uuid[])) ORDER BY r.id"""


async def load(session: OrganizationSession, run_ids: Sequence[UUID], *, lock: bool) -> list[Old]:
    """The runs, by id. With `lock`, nobody else replays them before this transaction ends, and whoever is doing something for one of
    them in a transaction of its own (see `effects.claim`) is waited for."""
    query = text(f"{_LOAD} FOR UPDATE OF r" if lock else _LOAD)
    rows = await session.execute(query, {"o": session.organization_id, "ids": list(run_ids)})
    return [Old(**row) for row in rows.mappings()]


async def plan(session: OrganizationSession, olds: Sequence[Old], wanted: Wanted) -> list[Plan | Refusal]:
    """How each of the runs is replayed, or why it cannot be; in their order. A constant number of statements. Writes nothing."""
    versions = await _Versions.load(session, olds, wanted.version)
    roots = sorted({old.root_id for old in olds})
    chains, pasts = await _chains(session, roots), await _pasts(session, roots)
    return [_plan(old, wanted, versions, chains[old.root_id], pasts[old.root_id]) for old in olds]


def _plan(old: Old, wanted: Wanted, versions: "_Versions", chain: Sequence[Trip], pasts: Mapping[Place, Past]) -> Plan | Refusal:
    if (code := _refusal(old)) is not None:
        return Refusal(old, code)
    original, version = versions.original(old), versions.chosen(old)
    definition = versions.definition(version)
    step_id = wanted.from_step or old.step_id or definition.start
    if step_id not in definition.steps:
        return Refusal(old, "unknown_step", version, original, step_id, sorted(definition.steps))
    begun = begin_at(chain, step_id, definition.looping, named=wanted.from_step is not None)
    ahead = forecast(definition, step_id, begun, pasts, wanted.resend)
    again = {each.step_id: each.visit for each in ahead if each.standing is Standing.RESENT}
    if wanted.strict and (missing := sorted(wanted.resend - again.keys())):
        done = [each.step_id for each in ahead if each.standing in (Standing.KEPT, Standing.UNCERTAIN, Standing.RESENT)]
        return Refusal(old, "nothing_to_resend", version, original, missing[0], done)
    return Plan(old, version, original, definition, step_id, begun, ahead, again)


def _refusal(old: Old) -> str | None:
    if old.replayed_by is not None:
        return "replayed_already"
    if old.status not in REPLAYABLE:
        return "not_over"
    if old.leaving or old.cancelling:
        return "run_left" if old.leaving else "run_cancelled"
    if old.journey_archived:
        return "journey_archived"
    return "campaign_cancelled" if old.campaign_cancelled else None


class _Versions:
    def __init__(self, by_id: Mapping[UUID, JourneyVersion], current: Mapping[UUID, UUID]) -> None:
        self._by_id = by_id
        self._current = current  # by journey; empty where the original is asked for
        self._definitions: dict[UUID, Definition] = {}

    @classmethod
    async def load(cls, session: OrganizationSession, olds: Sequence[Old], choice: VersionChoice) -> "_Versions":
        journeys = sorted({old.journey_id for old in olds})
        current = await journey_versions.newest_ids(session, journeys) if choice == "current" else {}
        return cls(await journey_versions.by_id(session, [*(old.version_id for old in olds), *current.values()]), current)

    def original(self, old: Old) -> JourneyVersion:
        return self._by_id[old.version_id]

    def chosen(self, old: Old) -> JourneyVersion:
        return self._by_id[self._current.get(old.journey_id, old.version_id)]

    def definition(self, version: JourneyVersion) -> Definition:
        if version.id not in self._definitions:
            self._definitions[version.id] = Definition.model_validate(version.definition)
        return self._definitions[version.id]


# --- what the chains have done ----------------------------------------------------------------------------------------

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
    SELECT coalesce(r.root_run_id, r.id) AS root, d.step_id, d.visit, r.id AS run_id, d.state, d.reason,
      coalesce(d.settled_at, d.transmitting_at, d.claimed_at) AS at
    {_CHAIN.format(join="JOIN deliveries d ON d.organization_id = :o AND d.run_id = r.id")}
    UNION ALL
    SELECT coalesce(r.root_run_id, r.id), e.step_id, e.visit, r.id, e.state, e.reason, coalesce(e.settled_at, e.created_at)
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


async def _chains(session: OrganizationSession, roots: Sequence[UUID]) -> dict[UUID, list[Trip]]:
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


async def _pasts(session: OrganizationSession, roots: Sequence[UUID]) -> dict[UUID, dict[Place, Past]]:
    found: defaultdict[UUID, dict[Place, Past]] = defaultdict(dict)
    for row in await session.execute(_PASTS, {"o": session.organization_id, "roots": list(roots)}):
        here, place = found[row.root], (row.step_id, row.visit)
        here[place] = better(here.get(place), Past(row.run_id, _DEEDS.get(row.state, Deed.NOT_DONE), row.at, row.reason))
    return found


# --- making them ------------------------------------------------------------------------------------------------------

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
    session: OrganizationSession, plans: Sequence[Plan], wanted: Wanted, actor: Actor, request_id: UUID | None = None
) -> tuple[list[Made], list[NewEntry]]:
    """A new run for each plan, up to `RUNS_PER_WORKFLOW` of one version and campaign in a workflow, and the old ones closed; and what the
    audit chain is to be told, last in the transaction. `plans`: of runs that `load(…, lock=True)` gave. A constant number of statements.

    The outbox tells the old runs' workflows, where there still are any, and starts those of the new: routing is to be woken after the
    commit. `request_id`: only for a single plan.
    """
    if not plans:
        return [], []
    made = _places(session.organization_id, plans)
    rows = [_row(one, each, wanted, actor, request_id) for one, each in zip(made, plans, strict=True)]
    await session.execute(_INSERT, {"o": session.organization_id, "rows": rowset(rows)})
    closing = rowset([{"id": one.id, "old_id": one.old_id} for one in made])
    await session.execute(_CLOSE, {"o": session.organization_id, "rows": closing, "reason": REPLAYED})
    closed = [each.old.id for each in plans if each.old.status not in FINISHED]
    await session.execute(_CLOSE_WAITS, {"o": session.organization_id, "ids": closed})
    first = {one.workflow_id: one.id for one in reversed(made)}
    starts = [Told(run_id, "start") for run_id in first.values()]
    await outbox.put(session, [*(Told(run_id, "exit", {"reason": REPLAYED}) for run_id in closed), *starts])
    return made, [entry for one, each in zip(made, plans, strict=True) for entry in _entries(one, each, wanted, actor)]


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


def _row(one: Made, plan: Plan, wanted: Wanted, actor: Actor, request_id: UUID | None) -> dict[str, Any]:
    terms = {
        "from_step": plan.from_step,
        "visits": dict(plan.begun.visits),
        "visits_before": plan.begun.visits_before,
        "skips": list(plan.begun.skips),
        "version": wanted.version,
        "resend": dict(plan.again),
        "reason": wanted.reason,
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


def _entries(one: Made, plan: Plan, wanted: Wanted, actor: Actor) -> list[NewEntry]:
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
    """
    SELECT r.workflow_id, r.journey_id, r.version_id, r.campaign_id, coalesce(c.on_error, 'park') AS on_error, r.id, r.contact_id,
      r.step_id, r.replay, r.cancel_requested_at IS NOT NULL AS cancelled
    FROM runs r LEFT JOIN campaigns c ON c.organization_id = :o AND c.id = r.campaign_id
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
        one.runs.append(StartingRun(row.id, row.contact_id, row.step_id, begun_with(row.replay), row.cancelled))
    return list(found.values())


# --- telling of them --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """From a run to its replay, or back."""

    run_id: UUID
    at: datetime
    terms: dict[str, Any]


RUNS_LOOKED_AT = 500  # in one go


@dataclass(frozen=True)
class DryRun:
    """What a replay of many runs would come to. `by_step`: how many effects, by step and standing; `refused`: how many runs, by why."""

    by_step: Mapping[str, Mapping[str, int]]
    refused: Mapping[str, int]
    numbers: Mapping[str, int]


async def dry_run(session: OrganizationSession, run_ids: Sequence[UUID], wanted: Wanted) -> DryRun:
    """The sums over all of these runs. Writes nothing."""
    by_step: defaultdict[str, Counter[str]] = defaultdict(Counter)
    refused: Counter[str] = Counter()
    numbers: Counter[str] = Counter({str(standing): 0 for standing in Standing})
    for first in range(0, len(run_ids), RUNS_LOOKED_AT):
        for each in await plan(session, await load(session, run_ids[first : first + RUNS_LOOKED_AT], lock=False), wanted):
            if isinstance(each, Refusal):
                refused[each.code] += 1
                continue
            for effect in each.ahead:
                by_step[effect.step_id][effect.standing] += 1
                numbers[effect.standing] += 1
    return DryRun(by_step, refused, numbers)


_REPLAY_OF = text("SELECT id, created_at, replay FROM runs WHERE organization_id = :o AND id = :id")


async def replay_of_run(session: OrganizationSession, replayed_by: UUID) -> Link | None:
    """The replay of this id; None: its contact was erased."""
    row = (await session.execute(_REPLAY_OF, {"o": session.organization_id, "id": replayed_by})).one_or_none()
    return None if row is None else Link(row.id, row.created_at, row.replay or {})
