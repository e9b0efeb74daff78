"""Random journeys, contacts, events, reviews, version moves and worker restarts: the pure interpreter, the simulator and Temporal find
the same path for each contact, and nobody is lost on the way.

What the world answers is drawn beforehand, as a function of who asks where for how many-th time. `LEADSTATS_PATHS=2000` walks more.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio import activity
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.contracts import (
    AuditBatch,
    HandOver,
    JourneyInput,
    MoveChoice,
    MoveOrder,
    RunControl,
    RunMessage,
    RunMessages,
    Scope,
    StepAnswer,
    StepVisit,
    Transition,
    VisitBatch,
    send_queue,
)
from models.domain.journey import interpreter
from models.domain.journey.definition import Definition, ReviewStep
from models.domain.journey.interpreter import Question, Send, WaitUntil
from models.domain.journey.run import FINISHED, Phase, RunState
from models.domain.journey.steps.base import Answer, fraction
from models.domain.simulation.effects.effect import Heard
from models.domain.simulation.person import Person
from models.domain.simulation.scenario import World as Scenario
from models.domain.simulation.surroundings import Surroundings
from models.domain.simulation.trip import Plan, Traveller
from tests.models.domain.journey.drawing import steps
from tests.workflows.fakes import Fakes
from workflows.journey import JourneyWorkflow

EXAMPLES = int(os.environ.get("LEADSTATS_PATHS", "100"))
AT_ONCE = 20  # journeys under way together
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FAR = NOW + timedelta(days=36_600)
Step = tuple[str, str | None, int | None]  # kind of change, step, visit


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    names = [f"s{number}" for number in range(draw(st.integers(1, 6)))]
    drawn = {name: draw(steps([*names, None])) for name in names}
    forever = {name: step.model_copy(update={"timeout": None}) if isinstance(step, ReviewStep) else step for name, step in drawn.items()}
    return Definition(start=names[0], steps=forever, max_visits=draw(st.integers(1, 3)))


@dataclass(frozen=True)
class World:
    """One journey, its successor, and every answer that a run of it will get."""

    definition: Definition
    successor: Definition
    seed: int
    contacts: tuple[UUID, ...]
    version_id: UUID = field(default_factory=uuid4)
    next_version_id: UUID = field(default_factory=uuid4)

    def draw(self, run: UUID, version: UUID, step: str, visit: int, what: str, choices: int) -> int:
        moved = "old" if version == self.version_id else "new"
        return int(fraction(self.seed, self.contacts.index(run), moved, step, visit, what) * choices)

    def answer(self, run: UUID, version: UUID, question: str, step: str, visit: int, now: datetime) -> Answer:
        chance = self.draw(run, version, step, visit, question, 4)
        match question:
            case "choose_branches":
                return Answer(index=0 if chance % 2 else None)
            case "open_waits" | "close_waits":  # early, in the last moment, or never
                return Answer(index=0 if chance == 0 else None)
            case "plan_waits":
                return Answer(until=now + timedelta(hours=chance)) if chance else Answer(reason="date_passed")
            case _:
                return Answer(refused=chance == 0, reason="not_possible" if chance == 0 else None)

    def sends(self, run: UUID, version: UUID, step: str, visit: int) -> bool:
        return self.draw(run, version, step, visit, "send", 3) > 0

    def review(self, run: UUID, version: UUID, step: str, visit: int) -> str:
        """What a person does about a run that waits for a review: approve, reject, or publish the successor."""
        choices = ("approve", "reject", "exit") if version != self.version_id else ("approve", "reject", "exit", "move")
        return choices[self.draw(run, version, step, visit, "review", len(choices))]

    def target(self, step: str) -> str:
        return sorted(self.successor.steps)[int(fraction(self.seed, step, "target") * len(self.successor.steps))]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    contacts = tuple(UUID(int=draw(st.integers(1, 2**128 - 1))) for _ in range(draw(st.integers(1, 4))))
    return World(draw(definitions()), draw(definitions()), draw(st.integers(0, 10**9)), tuple(dict.fromkeys(contacts)))


# --- the pure interpreter -----------------------------------------------------------------------------------------------


def walk(world: World, run: UUID) -> list[Step]:
    """The path that the pure interpreter takes."""
    definition, version = world.definition, world.version_id
    progress = interpreter.enter(definition, RunState(run_id=run, contact_id=run, step_id=definition.start), NOW)
    path, state = _steps(progress), replace(progress.state, sequence=1)
    while (command := interpreter.next_command(definition, state)) is not None:
        at = state.step_id or ""
        match command:
            case Send():
                sent = world.sends(run, version, at, state.visit)
                progress = (
                    interpreter.sent(definition, state, NOW, {}) if sent else interpreter.not_sent(definition, state, NOW, "no_consent")
                )
            case Question(name=name):
                progress = interpreter.answered(definition, state, world.answer(run, version, name, at, state.visit, NOW), NOW)
            case WaitUntil(at=None):  # a review
                word = world.review(run, version, at, state.visit)
                if word == "move":
                    definition, version = world.successor, world.next_version_id
                    progress = interpreter.enter(definition, interpreter.moving(state, world.target(at)), NOW)
                elif word == "exit":
                    progress = interpreter.leave(state, "exit_rule:drawn")
                else:
                    progress = interpreter.reviewed(definition, state, NOW, word == "approve") or interpreter.Progress(state)
            case WaitUntil():
                progress = interpreter.wake(definition, state, NOW)
        path, state = path + _steps(progress), progress.state
    return path


class Drawn(Traveller):
    """The simulator's driver, in a world that answers as drawn."""

    def __init__(self, world: World, run: UUID) -> None:
        around = Plan(world.definition, Surroundings(), printer=None, world=Scenario(), script=(), start=NOW, until=FAR)  # type: ignore[arg-type]
        super().__init__(around, Person(run, {}), run)
        self.drawn, self.version = world, world.version_id

    def answer(self, question: str) -> Heard:
        state = self.state
        return Heard(self.drawn.answer(state.run_id, self.version, question, state.step_id or "", state.visit, self.now))

    def send(self) -> None:
        state = self.state
        sent = self.drawn.sends(state.run_id, self.version, state.step_id or "", state.visit)
        definition, now = self.definition, self.now
        self._apply(interpreter.sent(definition, state, now, {}) if sent else interpreter.not_sent(definition, state, now, "no_consent"))

    def next_turn(self) -> datetime | None:
        return None  # the drawn conditions are no rules

    def rest(self, wake_at: datetime | None) -> bool:
        """A person looks at once at whoever waits for a review."""
        if wake_at is not None:
            return super().rest(wake_at)
        state, at = self.state, self.state.step_id or ""
        match self.drawn.review(state.run_id, self.version, at, state.visit):
            case "move":
                self.definition, self.version = self.drawn.successor, self.drawn.next_version_id
                self._apply(interpreter.enter(self.definition, interpreter.moving(state, self.drawn.target(at)), self.now))
            case "exit":
                self._leave("exit_rule:drawn")
            case word:
                self._apply(interpreter.reviewed(self.definition, state, self.now, word == "approve") or interpreter.Progress(state))
        return True


def simulated(world: World, run: UUID) -> list[Step]:
    """The path that the simulator takes."""
    trip = Drawn(world, run).travel()
    assert not trip.cut
    return [(line.change.kind, line.change.step_id, line.change.visit) for line in trip.lines]


def _steps(progress: interpreter.Progress) -> list[Step]:
    return [(change.kind, change.step_id, change.visit) for change in progress.changes]


# --- Temporal -----------------------------------------------------------------------------------------------------------


class Scripted(Fakes):
    """Activities that answer as the worlds say, for many journeys at once."""

    def __init__(self, server: WorkflowEnvironment, queue: str) -> None:
        super().__init__()
        self.server, self.queue = server, queue
        self.worlds: dict[UUID, World] = {}  # by run
        self.workflows: dict[UUID, str] = {}  # by run
        self.versions: dict[UUID, UUID] = {}  # by run
        self.said_in: dict[tuple[UUID, int], UUID] = {}  # the version in which a transition, by run and sequence, was recorded
        self.consent = lambda visit: (
            None if self._world(visit).sends(visit.run_id, self._version(visit), visit.step_id, visit.visit) else "no"
        )

    def _world(self, visit: StepVisit) -> World:
        return self.worlds[visit.run_id]

    def _version(self, visit: StepVisit) -> UUID:
        return self.versions[visit.run_id]

    def all(self) -> list[Any]:
        return [
            *(self.check_consent, self.check_quiet_hours, self.send_messages, self.record_audit, self.hand_over_runs),
            *(self.branches, self.plan, self.open, self.close, self.perform),
        ]

    def _answers(self, question: str, batch: VisitBatch) -> list[StepAnswer]:
        answers = []
        for visit in batch.visits:
            world = self.worlds[visit.run_id]
            answer = world.answer(visit.run_id, self.versions[visit.run_id], question, visit.step_id, visit.visit, batch.now)
            answers.append(StepAnswer(run_id=visit.run_id, **vars(answer)))
        return answers

    @activity.defn(name="record_audit")
    async def record_audit(self, batch: AuditBatch) -> None:
        for each in batch.transitions:
            self.said_in.setdefault((each.run_id, each.sequence), batch.scope.version_id)
        self.transitions += [each for each in batch.transitions if each not in self.transitions]

    @activity.defn(name="choose_branches")
    async def branches(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._answers("choose_branches", batch)

    @activity.defn(name="plan_waits")
    async def plan(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._answers("plan_waits", batch)

    @activity.defn(name="open_waits")
    async def open(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._answers("open_waits", batch)

    @activity.defn(name="close_waits")
    async def close(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._answers("close_waits", batch)

    @activity.defn(name="perform_steps")
    async def perform(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._answers("perform_steps", batch)

    @activity.defn(name="hand_over_runs")
    async def hand_over_runs(self, handed: HandOver) -> None:
        for state in handed.runs:
            self.versions[state.run_id] = handed.order.version_id
            await self.start(self.worlds[state.run_id], [state], handed.order.version_id)

    async def start(self, world: World, states: list[RunState], version: UUID) -> None:
        scope = Scope(organization_id=uuid4(), journey_id=uuid4(), version_id=version)
        definition = world.definition if version == world.version_id else world.successor
        name = f"paths/{states[0].run_id}/{version}"
        for state in states:
            self.workflows[state.run_id] = name
        given = JourneyInput(scope=scope, definition=definition, runs=states)
        await self.server.client.start_workflow(JourneyWorkflow.run, given, id=name, task_queue=self.queue)

    # What people do, once the run waits for them.

    async def operate(self, answered: set[tuple[UUID, int]]) -> None:
        """Everybody who waits for a review gets it, once."""
        for transition in list(self.transitions):
            if transition.kind == "review_asked" and self.newest(transition.run_id) is transition:
                key = (transition.run_id, transition.sequence)
                if key not in answered:
                    answered.add(key)
                    await self._review(transition, self.said_in[key])

    async def _review(self, asked: Transition, version: UUID) -> None:
        run, step, visit = asked.run_id, asked.step_id or "", asked.visit or 1
        world, handle = self.worlds[run], self.server.client.get_workflow_handle(self.workflows[run])
        late = RunMessage(run_id=run, kind="matched", step_id="elsewhere", visit=9, index=0)
        await handle.signal("tell", RunMessages(messages=[late, RunMessage(run_id=run, kind="reconsider")]))
        match world.review(run, version, step, visit):
            case "move":
                choices = {step: MoveChoice(step_id=world.target(step))}
                order = MoveOrder(plan_id=uuid4(), version_id=world.next_version_id, choices=choices)
                # Only this run stands there for its own reasons; others at the step are moved when their turn comes.
                await handle.execute_update("move_runs", order.model_copy(update={"run_ids": [run]}))
            case "exit":
                exits = [RunMessage(run_id=run, kind="exit", reason="exit_rule:drawn")] * 2
                await handle.signal("tell", RunMessages(messages=exits))
            case word:
                await handle.execute_update("control_runs", RunControl.model_validate({"command": word, "run_ids": [run]}))

    def newest(self, run: UUID) -> Transition:
        return max((each for each in self.transitions if each.run_id == run), key=lambda each: each.sequence)

    def path(self, run: UUID) -> list[Step]:
        mine = sorted((each for each in self.transitions if each.run_id == run), key=lambda each: each.sequence)
        return [(each.kind, each.step_id, each.visit) for each in mine]

    def finished(self) -> bool:
        return all(self.phases().get(run) in FINISHED for run in self.worlds)


@asynccontextmanager
async def working(server: WorkflowEnvironment, fakes: Scripted) -> AsyncIterator[None]:
    async with (
        Worker(server.client, task_queue=fakes.queue, workflows=[JourneyWorkflow], activities=fakes.all(), max_cached_workflows=0),
        Worker(server.client, task_queue=send_queue(fakes.queue), activities=[fakes.send_messages, fakes.perform]),
    ):
        yield


async def travel(server: WorkflowEnvironment, drawn: list[World]) -> Scripted:
    """All journeys of these worlds, through Temporal, the workers restarted on the way."""
    fakes = Scripted(server, str(uuid4()))
    answered: set[tuple[UUID, int]] = set()
    for world in drawn:
        for run in world.contacts:
            fakes.worlds[run], fakes.versions[run] = world, world.version_id
        await fakes.start(
            world, [RunState(run_id=run, contact_id=run, step_id=world.definition.start) for run in world.contacts], world.version_id
        )
    async with asyncio.timeout(240):
        while not fakes.finished():
            seen = len(fakes.transitions)
            async with working(server, fakes):
                while not fakes.finished() and len(fakes.transitions) < seen + 10 * AT_ONCE:
                    await fakes.operate(answered)
                    await asyncio.sleep(0.02)
    return fakes


@given(worlds())
@settings(
    max_examples=max(1, EXAMPLES // 2),
    deadline=None,
    phases=(hypothesis.Phase.generate,),
    derandomize="LEADSTATS_PATHS" not in os.environ,
    database=None,
)
def test_the_simulator_takes_the_interpreters_path(world: World) -> None:
    for run in world.contacts:
        assert simulated(world, run) == walk(world, run)


@given(st.lists(worlds(), min_size=AT_ONCE, max_size=AT_ONCE))
@settings(
    max_examples=max(1, EXAMPLES // AT_ONCE),
    deadline=None,
    phases=(hypothesis.Phase.generate,),  # to shrink takes longer than to read
    suppress_health_check=list(HealthCheck),
    derandomize="LEADSTATS_PATHS" not in os.environ,
    database=None,
)
async def test_the_interpreter_and_temporal_find_the_same_path_for_each_contact(server: WorkflowEnvironment, drawn: list[World]) -> None:
    drawn = [World(w.definition, w.successor, w.seed, tuple(uuid4() for _ in w.contacts)) for w in drawn]
    fakes = await travel(server, drawn)
    for world in drawn:
        for run in world.contacts:
            assert fakes.path(run) == walk(world, run) == simulated(world, run)
            numbers = sorted(each.sequence for each in fakes.transitions if each.run_id == run)
            assert numbers == list(range(1, len(numbers) + 1))
    phases = list(fakes.phases().values())
    assert len(phases) == sum(len(world.contacts) for world in drawn)  # entered = the sum over the phases, all of them final
    assert all(Phase(phase) in FINISHED for phase in phases)
