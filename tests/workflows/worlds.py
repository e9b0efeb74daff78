"""Drawn worlds: a journey, its successor, and everything that its runs get to hear, from activities and from people.

All of it is drawn beforehand, as a function of who asks where for how many-th time, so that whoever walks hears the same. A world that is
`simulated` says only what a simulation's scenario and script can say as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Literal, TypeVar
from uuid import UUID, uuid4, uuid5

from hypothesis import strategies as st

from models.domain.journey.definition import BranchStep, CallWebhookStep, Definition, ReviewStep, SendStep, Step, WaitForStep
from models.domain.journey.entry import ExitRule
from models.domain.journey.interpreter import ROUNDS_PER_VERSION
from models.domain.journey.steps.base import fraction
from tests.models.domain.journey.drawing import steps

LEFT = "left"  # the event by which a run exits
REPLAYED = "replayed"  # why a parked run exits whose place another takes
GENERATIONS = 2  # of replays
MOST_RESTS = 8  # for a person; then somebody cancels the run
PATIENT_ROUNDS = 3  # a visit is told to ask again only so often

SENDS = ("sent", "sent", "sent", "sent", "not_sent", "held", "failed")
SIMULATED_SENDS = ("sent", "sent", "sent", "not_sent", "failed")
DEEDS = ("done", "done", "done", "refused", "failed", "again")
CALLS = ("done", "done", "failed", "again")  # of a simulated webhook
WAITS = ("early", "during", "last", "never", "never")  # when what is waited for happens

SILENT = ("everybody", "journey", "spread", "late", "wrong", "matched")  # leave no line of their own that anybody compares
ASIDES = (*SILENT, "pause", "cancel_step", "restore_step", "variables")
AT_REVIEW = ("approve", "approve", "reject", "exit", "move", "skip", "jump", "cancel", "cancel_step")
PARKED = ("retry", "retry", "retry", "skip", "jump", "exit", "move", "cancel", "cancel_step", "replay", "replay")
SIMULATED_AT_REVIEW = ("approve", "approve", "reject", "exit", "skip", "cancel")
SIMULATED_PARKED = ("retry", "retry", "skip", "exit", "cancel")
Wrap = Literal["pause", "journey"] | None
WRAPS: tuple[Wrap, ...] = (None, None, None, "pause", "journey")

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Word:
    """What a person says about a run that waits for one. `twice`: under the same id; `bulk`: to all runs of its workflow at once, each
    of which obeys only where it is seen to stand."""

    kind: str
    to_step: str | None = None
    twice: bool = False
    bulk: bool = False


@dataclass(frozen=True)
class Speech:
    """All that people say at one rest: what leaves the run where it is; then, maybe while it or its journey is paused, what ends it."""

    asides: tuple[Word, ...]
    last: Word
    wrap: Wrap = None


@dataclass(frozen=True)
class World:
    """One journey, its successor, and every answer that a run of it will get."""

    definition: Definition
    successor: Definition
    seed: int
    contacts: tuple[UUID, ...]
    simulated: bool = False
    on_error: Literal["park", "skip"] = "park"
    version_id: UUID = field(default_factory=uuid4)
    next_version_id: UUID = field(default_factory=uuid4)

    def of(self, version: UUID) -> Definition:
        return self.definition if version == self.version_id else self.successor

    @cached_property
    def numbers(self) -> dict[UUID, int]:
        """Of the runs, and of their replays, which get other answers."""
        numbers: dict[UUID, int] = {}
        for contact in self.contacts:
            run = contact
            for _ in range(GENERATIONS + 1):
                numbers[run] = len(numbers)
                run = replay_of(run)
        return numbers

    def draw(self, run: UUID, version: UUID, *about: str | int) -> float:
        return fraction(self.seed, self.numbers[run], "old" if version == self.version_id else "new", *about)

    # --- what activities answer ------------------------------------------------------------------------------------------

    def branch(self, run: UUID, version: UUID, step: str, visit: int) -> int | None:
        return 0 if self.draw(run, version, step, 0 if self.simulated else visit, "branch") < 0.5 else None

    def awaited(self, run: UUID, version: UUID, step: str, visit: int) -> str:
        when = _one(WAITS, self.draw(run, version, step, visit, "wait"))
        return "never" if self.simulated and when == "early" and visit > 1 else when  # once before the start, and each counts once

    def planned_hours(self, run: UUID, version: UUID, step: str, visit: int) -> int:
        """0: there is no such time any more."""
        return int(self.draw(run, version, step, visit, "plan") * 4)

    def send(self, run: UUID, version: UUID, step: str, visit: int, round: int) -> str:
        if self.simulated:
            return _one(SIMULATED_SENDS, self.draw(run, version, step, "send"))
        return _patient(_one(SENDS, self.draw(run, version, step, visit, round, "send")), round, "sent")

    def deed(self, run: UUID, version: UUID, step: str, visit: int, round: int) -> str:
        if self.simulated and self.of(version).steps[step].kind != "call_webhook":
            return "done"
        drawn = _one(CALLS if self.simulated else DEEDS, self.draw(run, version, step, visit, round, "deed"))
        return _patient(drawn, round, "done")

    # --- what people say -------------------------------------------------------------------------------------------------

    def speech(self, run: UUID, version: UUID, rest: int, step: str, parked: bool) -> Speech:
        """At the run's `rest`-th rest for a person, which is at `step`."""
        others = [each for each in sorted(self.of(version).steps) if each != step]
        kinds = SILENT if self.simulated else ASIDES
        asides = [
            Word(_one(kinds, self._said(run, rest, number, "kind")), _drawn(others, self._said(run, rest, number, "to")))
            for number in range(int(self._said(run, rest, "asides") * 2.5))
        ]
        spoken = tuple(aside for aside in asides if aside.to_step or not aside.kind.endswith("_step"))
        wrap = None if self.simulated else _one(WRAPS, self._said(run, rest, "wrap"))
        return Speech(spoken, self._last(run, version, rest, step, parked), wrap)

    def _last(self, run: UUID, version: UUID, rest: int, step: str, parked: bool) -> Word:
        at_review, at_failure = (SIMULATED_AT_REVIEW, SIMULATED_PARKED) if self.simulated else (AT_REVIEW, PARKED)
        kinds: Sequence[str] = at_failure if parked else at_review
        kind = "cancel" if rest >= MOST_RESTS else _one(kinds, self._said(run, rest, "last"))
        if kind == "move" and version != self.version_id:
            kind = "skip"
        return Word(
            kind, self._target(run, version, rest, step, kind), self._said(run, rest, "twice") < 0.3, self._said(run, rest, "bulk") < 0.3
        )

    def _target(self, run: UUID, version: UUID, rest: int, step: str, kind: str) -> str | None:
        match kind:
            case "jump":
                return _drawn(sorted(self.of(version).steps), self._said(run, rest, "to"))
            case "move":  # an order says it of a step, not of a run
                return _drawn(sorted(self.successor.steps), fraction(self.seed, step, "target"))
            case "cancel_step":
                return step
            case _:
                return None

    def _said(self, run: UUID, *about: str | int) -> float:
        return fraction(self.seed, self.numbers[run], *about)

    # --- replays ---------------------------------------------------------------------------------------------------------

    def replay(self, run: UUID, version: UUID, reason: str | None, last_step: str) -> tuple[UUID, str] | None:
        """Whether the run, which is over, is replayed, and if so, by which run and from which step: mostly the first, from which on much
        is kept, its last, or any."""
        again = replay_of(run)
        if self.simulated or again not in self.numbers or (reason != REPLAYED and self._said(run, "replayed") > 0.75):
            return None
        definition = self.of(version)
        steps = sorted(definition.steps)
        return again, _one([definition.start, definition.start, last_step, _one(steps, self._said(run, "step"))], self._said(run, "from"))


def _one(kinds: Sequence[Kind], drawn: float) -> Kind:
    return kinds[int(drawn * len(kinds))]


def _drawn(names: Sequence[str], drawn: float) -> str | None:
    return _one(names, drawn) if names else None


def _patient(drawn: str, round: int, otherwise: str) -> str:
    return otherwise if drawn in ("held", "again") and round % ROUNDS_PER_VERSION >= PATIENT_ROUNDS else drawn


# --- drawing ------------------------------------------------------------------------------------------------------------


@st.composite
def definitions(draw: st.DrawFn, simulated: bool) -> Definition:
    names = tuple(f"s{number}" for number in range(draw(st.integers(2, 7))))
    fit = _simulable if simulated else _endless
    drawn = {name: fit(name, draw(_steps(names))) for name in names}
    return Definition(start=names[0], steps=drawn, max_visits=draw(st.integers(1, 4)), exits=(ExitRule(name=LEFT, event=LEFT),))


@cache  # made once: that takes longer than to draw from it
def _steps(names: tuple[str, ...]) -> st.SearchStrategy[Step]:
    """More than their share of those at which people speak."""
    to = st.sampled_from([*names, None])
    reviews = st.builds(ReviewStep, approved=to, rejected=to)
    calls = st.builds(CallWebhookStep, url=st.just("https://example.com/hook"), next=to)
    sends = st.builds(SendStep, template_id=st.builds(uuid4), next=to)
    return st.one_of(steps((*names, None)), steps((*names, None)), reviews, calls, sends)


def _endless(name: str, step: Step) -> Step:
    """Reviews wait for ever: they are where people speak."""
    return step.model_copy(update={"timeout": None}) if isinstance(step, ReviewStep) else step


def _simulable(name: str, step: Step) -> Step:
    """As `World` says things: a branch by the run's variables, a wait by events of its own; nobody has to agree to a message."""
    match step:
        case BranchStep():
            way = {"field": f"run.{way_of(name)}", "is": "equals", "value": 1}
            return step.model_copy(update={"conditions": (step.conditions[0].model_copy(update={"when": way}),)})
        case WaitForStep():
            return step.model_copy(update={"conditions": (), "events": (step.events[0].model_copy(update={"event": name}),)})
        case SendStep():
            return step.model_copy(update={"purpose": "transactional"})
        case _:
            return _endless(name, step)


def replay_of(run: UUID) -> UUID:
    return uuid5(run, "replay")


def way_of(step: str) -> str:
    return f"way_{step}"


@st.composite
def worlds(draw: st.DrawFn, simulated: st.SearchStrategy[bool]) -> World:
    plain = draw(simulated)
    contacts = tuple(UUID(int=draw(st.integers(1, 2**128 - 1))) for _ in range(draw(st.integers(1, 4))))
    definition = draw(definitions(plain))
    return World(
        definition=definition,
        successor=definition if plain else draw(definitions(plain)),
        seed=draw(st.integers(0, 10**9)),
        contacts=tuple(dict.fromkeys(contacts)),
        simulated=plain,
        on_error="park" if plain else draw(st.sampled_from(["park", "park", "skip"])),
    )
