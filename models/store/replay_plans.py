"""How runs are replayed, or why they cannot be. Writes nothing."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.definition import Definition
from models.domain.journey.operations import UNKNOWN_RESEND, UNKNOWN_STEP
from models.domain.journey.replay import Act, Ahead, Begun, Past, Standing, Trip, begin_at, forecast, worn_out
from models.domain.journey.run import FINISHED, Phase
from models.store import journey_versions, outside_rules, replay_chains
from models.store.journeys import CANCELLED_WITH
from models.store.run_applicability import LOST_PAUSED
from models.store.session import OrganizationSession
from models.store.triggers import listens_to_runs
from models.tables.base import utc_now
from models.tables.journeys import JourneyVersion

VersionChoice = Literal["original", "current"]
REPLAYABLE = FINISHED | {Phase.NEEDS_ATTENTION}


@dataclass(frozen=True)
class ReplayOptions:
    """What is asked for. `from_step` None: each run's, where it stopped. `resend`: steps whose effect is to be done again although it
    was done, or may have been; `strict`: a run of which nothing was done there is refused, otherwise one that has no such step.
    `current`: by journey, the version that is meant by that; empty: the newest."""

    from_step: str | None = None
    version: VersionChoice = "original"
    resend: frozenset[str] = frozenset()
    reason: str = ""
    strict: bool = True
    current: Mapping[UUID, UUID] = field(default_factory=dict)


def wanted_of(arguments: Mapping[str, Any], reason: str, current: Mapping[UUID, UUID]) -> ReplayOptions:
    """What an operation on many runs asks of each: what was done there is done again, the rest anyway. `current`: as previewed."""
    version: VersionChoice = "current" if arguments.get("version") == "current" else "original"
    return ReplayOptions(arguments.get("from_step"), version, frozenset(arguments.get("resend", ())), reason, False, current)


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
    paused: bool  # by itself, when its workflow was lost: its replay begins so


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

    @property
    def worn_out(self) -> bool:
        """Whether the run exits at once, having come to its first step as often as the journey allows."""
        return self.from_step in worn_out(self.definition, self.begun)


@dataclass(frozen=True)
class Refusal:
    """Why a run cannot be replayed: not_over, replayed_already, run_left, run_cancelled, journey_archived, campaign_cancelled,
    unknown_step, nothing_to_resend or (of many) unknown_resend. `steps`: that there are, or that can be sent again."""

    old: Old
    code: str
    version: JourneyVersion | None = None
    original: JourneyVersion | None = None
    step: str | None = None
    steps: Sequence[str] = ()


_LOAD = f"""
    SELECT r.id, r.journey_id, r.version_id, r.campaign_id, r.contact_id, r.status, r.step_id, coalesce(r.root_run_id, r.id) AS root_id,
      r.replayed_by, r.finished_at IS NULL AND r.exit_requested_at IS NOT NULL AS leaving,
      r.finished_at IS NULL AND (r.cancel_requested_at IS NOT NULL OR coalesce({CANCELLED_WITH}, FALSE)) AS cancelling,
      j.archived_at IS NOT NULL AS journey_archived, c.cancelled_at IS NOT NULL AS campaign_cancelled,
      coalesce({LOST_PAUSED}, FALSE) AS paused
    FROM runs r JOIN journeys j ON j.organization_id = :o AND j.id = r.journey_id
    LEFT JOIN campaigns c ON c.organization_id = :o AND c.id = r.campaign_id
    WHERE r.organization_id = :o AND r.id = ANY(CAST(:ids AS uuid[])) ORDER BY r.id"""


# In a statement of its own: the next one sees what whoever held these has committed.
_LOCK_JOURNEYS = text(
    """
    SELECT j.id FROM journeys j WHERE j.organization_id = :o AND j.id IN (
      SELECT r.journey_id FROM runs r WHERE r.organization_id = :o AND r.id = ANY(CAST(:ids AS uuid[])))
    ORDER BY j.id FOR NO KEY UPDATE
    """
)


async def load(session: OrganizationSession, run_ids: Sequence[UUID], *, lock: bool) -> list[Old]:
    """The runs, by id. With `lock`, nobody else replays them before this transaction ends, nor cancels their journeys, and whoever is
    doing something for one of them in a transaction of its own (see `effects.claim`) is waited for."""
    wanted = {"o": session.organization_id, "ids": list(run_ids)}
    if lock:
        await session.execute(_LOCK_JOURNEYS, wanted)
    rows = await session.execute(text(f"{_LOAD} FOR UPDATE OF r" if lock else _LOAD), wanted)
    return [Old(**row) for row in rows.mappings()]


async def plan(session: OrganizationSession, olds: Sequence[Old], wanted: ReplayOptions) -> list[Plan | Refusal]:
    """How each of the runs is replayed, or why it cannot be; in their order. A constant number of statements. Writes nothing."""
    versions = await _Versions.load(session, olds, wanted)
    roots = sorted({old.root_id for old in olds})
    chains, pasts = await replay_chains.chains(session, roots), await replay_chains.pasts(session, roots)
    return [_plan(old, wanted, versions, chains[old.root_id], pasts[old.root_id]) for old in olds]


async def ends_at_once(session: OrganizationSession, plans: Sequence[Plan]) -> dict[UUID, str]:
    """By the old run, the reason why its replay would end before it does anything, were it made now: an exit rule about the contact (or a
    goal that ends runs) holds already. Writes nothing."""
    definitions = {each.version.id: each.definition for each in plans if listens_to_runs(each.definition)}
    versions = {each.old.id: each.version.id for each in plans if each.version.id in definitions}
    return await outside_rules.ends_at_once(session, definitions, versions, utc_now()) if versions else {}


def _plan(old: Old, wanted: ReplayOptions, versions: "_Versions", chain: Sequence[Trip], pasts: Mapping[Act, Past]) -> Plan | Refusal:
    if (code := _refusal(old)) is not None:
        return Refusal(old, code)
    original, version = versions.original(old), versions.chosen(old)
    definition = versions.definition(version)
    step_id = (old.step_id or definition.start) if wanted.from_step is None else wanted.from_step
    if step_id not in definition.steps:
        return Refusal(old, UNKNOWN_STEP, version, original, step_id, sorted(definition.steps))
    if not wanted.strict and (unknown := sorted(wanted.resend - definition.steps.keys())):
        return Refusal(old, UNKNOWN_RESEND, version, original, unknown[0], sorted(definition.steps))
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
    async def load(cls, session: OrganizationSession, olds: Sequence[Old], wanted: ReplayOptions) -> "_Versions":
        current: Mapping[UUID, UUID] = {}
        if wanted.version == "current":
            current = wanted.current or await journey_versions.newest_ids(session, sorted({old.journey_id for old in olds}))
        return cls(await journey_versions.by_id(session, [*(old.version_id for old in olds), *current.values()]), current)

    def original(self, old: Old) -> JourneyVersion:
        return self._by_id[old.version_id]

    def chosen(self, old: Old) -> JourneyVersion:
        return self._by_id[self._current.get(old.journey_id, old.version_id)]

    def definition(self, version: JourneyVersion) -> Definition:
        if version.id not in self._definitions:
            self._definitions[version.id] = Definition.model_validate(version.definition)
        return self._definitions[version.id]


# --- of many ----------------------------------------------------------------------------------------------------------

RUNS_LOOKED_AT = 500  # in one go


@dataclass(frozen=True)
class DryRun:
    """What a replay of many runs would come to, in effects: by step and standing, and in all. Runs that cannot be replayed have none,
    nor have those whose replays would end at once: `ended` counts these by the reason."""

    by_step: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, int]
    ended: Mapping[str, int]


async def dry_run(session: OrganizationSession, run_ids: Sequence[UUID], wanted: ReplayOptions) -> DryRun:
    """The sums over all of these runs. Writes nothing."""
    by_step: defaultdict[str, Counter[str]] = defaultdict(Counter)
    numbers: Counter[str] = Counter({str(standing): 0 for standing in Standing})
    ended: Counter[str] = Counter()
    for first in range(0, len(run_ids), RUNS_LOOKED_AT):
        found = await plan(session, await load(session, run_ids[first : first + RUNS_LOOKED_AT], lock=False), wanted)
        plans = [each for each in found if isinstance(each, Plan)]
        reasons = await ends_at_once(session, plans)
        ended.update(reasons.values())
        for effect in (effect for each in plans if each.old.id not in reasons for effect in each.ahead):
            by_step[effect.step_id][effect.standing] += 1
            numbers[effect.standing] += 1
    return DryRun(by_step, numbers, ended)
