"""Simulations: what a draft or a version would do, for real or invented contacts. Nothing is sent, and nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from api.commands.facts import facts_of
from api.commands.simulating import Stage, stage
from api.dependencies import Caller
from api.processor import Heed
from models.domain.errors import Invalid, NotAllowed, Problem, Unpublishable
from models.domain.journey.check import check_definition, parse
from models.domain.journey.content_hash import freeze
from models.domain.journey.definition import Definition
from models.domain.journey.facts import Facts
from models.domain.simulation.person import Person
from models.domain.simulation.scenario import Invented, Script, World, late_problems
from models.domain.simulation.simulate import Simulated, asked_events, simulate
from models.store import journey_versions, journeys, segments, simulation_facts
from models.store.segment_sql import compile_rule
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.journeys import Journey

TOLERATED: Final = frozenset({"no_connection", "in_the_past"})  # what keeps a draft from being published, but not from being tried
FEWER: Final = "Simulate fewer contacts, or a shorter period (until); a journey that goes round and round soon needs a smaller max_visits."


@dataclass(frozen=True)
class Sample:
    """So many contacts of a segment (None: of all)."""

    size: int
    segment_id: UUID | None = None


@dataclass(frozen=True)
class SimulationRequest:
    """`version` None: the draft. `start` is aware; `keep`: how many contacts are told in full."""

    version: int | None
    start: datetime
    until: timedelta
    world: World
    script: Script
    contacts: Sequence[Invented] = ()
    contact_ids: Sequence[UUID] = ()
    sample: Sample | None = None
    keep: int = 20


@dataclass(frozen=True)
class Answer:
    """`warnings`: what still keeps the draft from being published."""

    journey: Journey
    stage: Stage
    simulated: Simulated
    warnings: Sequence[Problem]


async def run(caller: Caller, journey_id: UUID, wanted: SimulationRequest) -> Answer:
    """Everything is read in one transaction that cannot write; the trips are made in memory, in a thread of their own.

    Raises:
        NotFound: no such journey or version.
        NotAllowed: real contacts are asked for by somebody who may not see contacts.
        Unpublishable: the draft is no journey yet.
        Invalid: something is named that there is not, or cannot be, with its path.
        Unavailable: it is too much work, or others' simulations take too long.
    """
    if (wanted.contact_ids or wanted.sample) and "contacts.read" not in caller.permissions:
        raise NotAllowed("To simulate real contacts needs the permission contacts.read; invented ones need nothing more.")
    async with caller.session() as session:
        await simulation_facts.read_only(session)
        journey = await journeys.get(session, journey_id)
        definition, facts, warnings = await frozen(session, journey, wanted.version)
        made = await stage(session, definition, facts)
        _require_sense(made, wanted)
        people = await _people(session, caller, made, wanted)

    def simulated(heed: Heed) -> Simulated:
        return simulate(made.plan(wanted.world, wanted.script, wanted.start, wanted.until, heed), people, wanted.keep)

    found = await caller.services.simulating.work(caller.organization_id, "The simulation", FEWER, simulated)
    return Answer(journey, made, found, warnings)


async def frozen(session: OrganizationSession, journey: Journey, version: int | None) -> tuple[Definition, Facts, list[Problem]]:
    """The version, or the draft as it would be published now, with what still keeps it from that.

    Raises:
        NotFound: no such version.
        Unpublishable: the draft is no journey yet.
    """
    if version is not None:
        found = await journey_versions.get(session, journey.id, version)
        definition = Definition.model_validate(found.definition)
        return definition, await facts_of(session, definition, journey.id), []
    parsed = parse(journey.draft)
    if isinstance(parsed, list):
        raise _unready(parsed)
    facts = await facts_of(session, parsed, journey.id)
    problems = check_definition(parsed, facts)
    if grave := [problem for problem in problems if problem.code not in TOLERATED]:
        raise _unready(grave)
    return freeze(parsed, facts), facts, problems


def _unready(problems: list[Problem]) -> Unpublishable:
    return Unpublishable(
        problems,
        f"The draft has {len(problems)} problem{'s'[: len(problems) > 1]}; mend {'them' if len(problems) > 1 else 'it'}, then simulate it.",
    )


def _require_sense(made: Stage, wanted: SimulationRequest) -> None:
    problems = [*made.problems(wanted.world, wanted.script), *late_problems(wanted.script, wanted.until, "script")]
    for index, contact in enumerate(wanted.contacts):
        problems += made.contact_problems(contact, f"contacts[{index}]")
    if problems:
        raise Invalid(problems)


async def _people(session: OrganizationSession, caller: Caller, made: Stage, wanted: SimulationRequest) -> list[Person]:
    """Invented ones first, then those that were named, then the sample."""
    invented = [made.invent(contact, wanted.start, number) for number, contact in enumerate(wanted.contacts)]
    ids = list(dict.fromkeys(wanted.contact_ids))
    if wanted.sample is not None:
        ids = list(dict.fromkeys([*ids, *await _sample(session, wanted.sample)]))
    key = caller.services.settings.derive_key("suppressions")
    known = await simulation_facts.people(session, ids, asked_events(made.definition), key) if ids else {}
    missing = [index for index, id in enumerate(wanted.contact_ids) if id not in known]
    if missing:
        raise Invalid([Problem(f"contact_ids[{index}]", "unknown_contact", "There is no contact with this id.") for index in missing])
    return [*invented, *(known[id] for id in ids if id in known)]


async def _sample(session: OrganizationSession, sample: Sample) -> list[UUID]:
    if sample.segment_id is None:
        return await simulation_facts.sample(session, None, sample.size)
    rule = (await segments.get(session, sample.segment_id)).rule
    return await simulation_facts.sample(session, compile_rule(rule, utc_now()), sample.size)
