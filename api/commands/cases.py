"""Cases of journeys: keeping them, and running them against a draft, a version, or what is about to be published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from api.commands.facts import facts_of
from api.commands.simulating import Stage, stage, vocabulary
from api.commands.simulations import frozen
from api.dependencies import Caller
from api.processor import Heed, Processor
from models.domain.audit import NewEntry
from models.domain.errors import CasesFailed, Invalid, Problem
from models.domain.journey.definition import Definition
from models.domain.journey.draft import storable
from models.domain.journey.variables import variable_problems
from models.domain.simulation.case import Case, Difference
from models.domain.simulation.comparison import differences
from models.domain.simulation.possible import impossible
from models.domain.simulation.scenario import MAX_BYTES, kind_problems, late_problems
from models.domain.simulation.simulate import run_of
from models.domain.simulation.travel import travel
from models.domain.simulation.trip import Trip
from models.store import audit, journeys, simulation_cases, simulation_facts
from models.store.session import OrganizationSession
from models.tables.simulations import SimulationCase

SHOWN = 20  # differences of one case that a refusal to publish tells
MAX_CASE_BYTES = MAX_BYTES * 4  # with its expectation
SHORTER = "Nothing was changed. Look at less: cases with a shorter `until`, or fewer of them."


@dataclass(frozen=True)
class Ran:
    """What a case came to. `trip` None: it could not even begin."""

    case: Case
    differences: Sequence[Difference]
    trip: Trip | None

    @property
    def passed(self) -> bool:
        return not self.differences


async def add(caller: Caller, journey_id: UUID, case: Case) -> SimulationCase:
    """The journey has this case, which need not pass (yet).

    Raises:
        NotFound, Conflict: no such journey; the name is taken, or there are too many.
        Invalid: it is too large, cannot be kept, or speaks of a contact or of happenings that can never be.
    """
    _require_storable(case)
    async with caller.session() as session:
        await journeys.get(session, journey_id, lock=True)
        await require_sense(session, {"": case})
        row = await simulation_cases.add(session, journey_id, case, caller.person)
        await _append(session, caller, "journey.case_added", journey_id, row.id)
    return row


async def change(caller: Caller, journey_id: UUID, case_id: UUID, case: Case) -> SimulationCase:
    """The case says this instead. Raises as `add`."""
    _require_storable(case)
    async with caller.session() as session:
        await journeys.get(session, journey_id, lock=True)
        await require_sense(session, {"": case})
        row = await simulation_cases.change(session, journey_id, case_id, case, caller.person)
        await _append(session, caller, "journey.case_changed", journey_id, case_id)
    return row


async def remove(caller: Caller, journey_id: UUID, case_id: UUID) -> None:
    """Raises NotFound."""
    async with caller.session() as session:
        await journeys.get(session, journey_id, lock=True)
        await simulation_cases.remove(session, journey_id, case_id)
        await _append(session, caller, "journey.case_removed", journey_id, case_id)


def _require_storable(case: Case) -> None:
    if problems := unstorable(case, ""):
        raise Invalid(problems)


def unstorable(case: Case, path: str) -> list[Problem]:
    """Why the case cannot be kept. `path`: where it stands in the request; empty: it is the request."""
    at = f"{path}." if path else ""
    return [
        *storable(case.model_dump(mode="json", exclude_unset=True), path or "body", MAX_CASE_BYTES),
        *variable_problems(case.given.variables, f"{at}given.variables"),
        *kind_problems(case.script, f"{at}script"),
        *late_problems(case.script, case.until, f"{at}script"),
        *(Problem(f"{at}expected.{one.path}", one.code, one.message) for one in impossible(case)),
    ]


async def require_sense(session: OrganizationSession, given: Mapping[str, Case]) -> None:
    """What the cases (by where they stand in the request; empty: they are it) say of the contact, and of what happens, can be in this
    organization. What depends on the journey, whose draft may not be ready yet, is judged whenever they run.

    Raises:
        Invalid: naming all that cannot.
    """
    words, problems = await vocabulary(session), []
    for path, case in given.items():
        at = f"{path}." if path else ""
        problems += words.contact_problems(case.given.contact, f"{at}given.contact")
        problems += words.script_problems(case.given, case.script, f"{at}given", f"{at}script")
    if problems:
        raise Invalid(problems)


async def _append(session: OrganizationSession, caller: Caller, action: str, journey_id: UUID, case_id: UUID) -> None:
    details = {"case_id": str(case_id)}
    await audit.append(session, [NewEntry(action, "journey", str(journey_id), caller.actor, details)])


# --- Running --------------------------------------------------------------------------------------------------------


async def run(caller: Caller, journey_id: UUID, version: int | None, given: Sequence[Case] | None) -> list[Ran]:
    """Every case of the journey (or those given instead), against its draft or a version. Nothing is sent, and nothing is written.

    Raises:
        NotFound: no such journey or version.
        Unpublishable: the draft is no journey yet.
        Unavailable: it is too much work, or others' simulations take too long.
    """
    async with caller.session() as session:
        await simulation_facts.read_only(session)
        journey = await journeys.get(session, journey_id)
        definition, facts, _ = await frozen(session, journey, version)
        made = await stage(session, definition, facts)
        cases = await simulation_cases.every(session, journey_id) if given is None else given
    return await caller.services.simulating.work(
        caller.organization_id, "Trying the cases", SHORTER, lambda heed: run_all(made, cases, heed, strict=given is not None)
    )


async def require_passing(session: OrganizationSession, processor: Processor, journey_id: UUID, definition: Definition) -> None:
    """Every case of the journey passes with this (frozen) definition.

    Raises:
        CasesFailed: naming each case that does not, with how what happens differs from what it expects.
        Unavailable: they are too much work, or others' cases take too long.
    """
    cases = await simulation_cases.every(session, journey_id)
    if not cases:
        return
    made = await stage(session, definition, await facts_of(session, definition, journey_id))
    all_ran = await processor.work(session.organization_id, "Trying the cases", SHORTER, lambda heed: run_all(made, cases, heed))
    failed = [ran for ran in all_ran if not ran.passed]
    if failed:
        problems = [_problem(ran.case.name, difference) for ran in failed for difference in ran.differences[:SHOWN]]
        names = ", ".join(repr(ran.case.name) for ran in failed[:5]) + (", …" if len(failed) > 5 else "")
        of = f"{len(failed)} of {len(cases)} case{'s'[: len(cases) > 1]}"
        raise CasesFailed(problems, f"{of} failed ({names}): mend the journey, or change the cases if this is what it should do.")


def _problem(name: str, difference: Difference) -> Problem:
    return Problem(f"cases[{name}].{difference.where}", difference.code, difference.message)


def run_all(made: Stage, cases: Sequence[Case], heed: Heed, *, strict: bool = False) -> list[Ran]:
    """`strict`: also what is refused when a case is saved, but must not make one fail that has been kept since before."""
    return [_run(made, case, heed, strict) for case in cases]


def _run(made: Stage, case: Case, heed: Heed, strict: bool) -> Ran:
    """The same answer whenever it runs: everything that it rests on stands in the case, the journey and the organization's settings."""
    heed()
    problems = [
        *(late_problems(case.script, case.until, "script") if strict else ()),
        *made.problems(case.given, case.script, "given"),
        *made.contact_problems(case.given.contact, "given.contact"),
    ]
    if problems:
        return Ran(case, [Difference(problem.path, problem.code, problem.message) for problem in problems], None)
    plan = made.plan(case.given, case.script, case.start, case.until, heed)
    person = made.invent(case.given.contact, case.start)
    trip = travel(plan, person, run_of(person))
    return Ran(case, differences(case, made.definition, trip), trip)
