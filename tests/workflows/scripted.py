"""The path that Temporal takes through drawn worlds: activities that answer as they say, and people who speak to runs that wait for one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.contracts.control import Control, ControlledKind
from activities.contracts.execution import send_queue
from activities.contracts.journey import JourneyInput, RunMessage, RunMessages
from activities.contracts.moves import HandOver, MoveChoice, MoveOrder
from activities.contracts.payload import Scope
from activities.contracts.recording import AuditBatch, Transition
from activities.contracts.run_control import Place, RunControl, RunControlled
from activities.contracts.sending import Judgement, SendOutcome, SendResult
from activities.contracts.steps import StepAnswer, StepVisit, VisitBatch
from models.domain.decision import Outcome
from models.domain.journey.run import FINISHED, Phase, RunState
from tests.workflows.chains import LONG_AGO, Begin, Told, replay
from tests.workflows.walking import Step
from tests.workflows.worlds import LEFT, REPLAYED, Speech, Word, World
from workflows.journey import JourneyWorkflow

EVERYBODY = UUID(int=1)  # who pauses and resumes a whole workflow: at no moment of any run that could be foretold
HOUR = timedelta(hours=1)
# What people have said that leaves a run where it is, or will be obeyed later.
REMARKS = ("paused", "resumed", "variables_changed", "step_cancelled", "step_restored")
# Depends on whether something is in flight just then.
REQUESTS = ("cancel_requested", "skip_requested", "jump_requested", "skip_missed", "jump_missed")


@dataclass(frozen=True)
class Resting:
    """A run that waits for a person, and what that person says."""

    run: UUID
    place: Place
    sequence: int  # of the line that says so
    speech: Speech


class Scripted:
    """Everything outside the workflows, for many journeys at once."""

    def __init__(self, server: WorkflowEnvironment) -> None:
        self.server, self.queue = server, str(uuid4())
        self.worlds: dict[UUID, World] = {}  # by run
        self.begins: dict[UUID, Begin] = {}  # by run
        self.chains: dict[UUID, list[UUID]] = {}  # by contact, the newest run first
        self.given: Counter[tuple[UUID, UUID, str, int]] = Counter()  # messages that a provider took, by contact, version, step and visit
        self.versions: dict[UUID, UUID] = {}  # by run
        self.workflows: dict[UUID, str] = {}  # by run
        self.lines: dict[UUID, dict[int, Transition]] = {}  # by run and sequence
        self.settled: set[UUID] = set()  # runs that are over, and replayed if that is drawn
        self.rests: Counter[UUID] = Counter()
        self.answered: dict[UUID, int] = {}  # by run, the line that was answered last

    async def enter(self, world: World) -> None:
        begins = [Begin(run, run, world.version_id, world.definition.start) for run in world.contacts]
        await self._begin(world, begins)

    async def _begin(self, world: World, begins: Sequence[Begin]) -> None:
        for begin in begins:
            self.worlds[begin.run], self.begins[begin.run] = world, begin
            self.chains.setdefault(begin.contact, []).insert(0, begin.run)
        await self._start([begin.state for begin in begins], begins[0].version)

    async def _start(self, states: Sequence[RunState], version: UUID) -> None:
        world, replay = self.worlds[states[0].run_id], states[0].run_id != states[0].contact_id
        scope = Scope(organization_id=uuid4(), journey_id=uuid4(), version_id=version, on_error=world.on_error, replay=replay)
        name = f"{self.queue}/{states[0].run_id}/{version}"
        given = JourneyInput(scope=scope, definition=world.of(version), runs=states)
        await self.server.client.start_workflow(JourneyWorkflow.run, given, id=name, task_queue=self.queue)
        for state in states:
            self.versions[state.run_id], self.workflows[state.run_id] = version, name

    @asynccontextmanager
    async def working(self, cached: int) -> AsyncIterator[None]:
        """With workers that keep so many workflows; those that they have not, they replay."""
        sends = [self.send_messages, self.perform_steps]
        async with (
            Worker(
                self.server.client, task_queue=self.queue, workflows=[JourneyWorkflow], activities=self._all(), max_cached_workflows=cached
            ),
            Worker(self.server.client, task_queue=send_queue(self.queue), activities=sends),
        ):
            yield

    # --- activities ------------------------------------------------------------------------------------------------------

    def _all(self) -> list[Callable[..., Any]]:
        return [
            *(self.check_consent, self.check_quiet_hours, self.record_audit, self.hand_over_runs),
            *(self.choose_branches, self.plan_waits, self.open_waits, self.close_waits, self.perform_steps),
        ]

    def _kept(self, batch: VisitBatch, visit: StepVisit) -> bool:
        definition = self.worlds[visit.run_id].of(batch.scope.version_id)
        return self.begins[visit.run_id].keeps(definition, visit.step_id, visit.visit)

    def _fate(self, batch: VisitBatch, visit: StepVisit) -> str:
        return self.worlds[visit.run_id].send(visit.run_id, batch.scope.version_id, visit.step_id, visit.visit, visit.round)

    @activity.defn(name="check_consent")
    async def check_consent(self, batch: VisitBatch) -> list[Judgement]:
        return [self._allowed(batch, each) for each in batch.visits]

    def _allowed(self, batch: VisitBatch, visit: StepVisit) -> Judgement:
        if self._kept(batch, visit):
            kept = SendResult(
                run_id=visit.run_id, outcome=SendOutcome.ACCEPTED, delivery_id=uuid4(), kept_from=visit.contact_id, kept_at=LONG_AGO
            )
            return Judgement(run_id=visit.run_id, verdict=Outcome.HOLD, kept=kept)
        return _judged(visit, Outcome.REFUSE if self._fate(batch, visit) == "not_sent" else Outcome.SEND)

    @activity.defn(name="check_quiet_hours")
    async def check_quiet_hours(self, batch: VisitBatch) -> list[Judgement]:
        held = {visit.run_id for visit in batch.visits if self._fate(batch, visit) == "held"}
        until = batch.now + HOUR
        return [_judged(visit, Outcome.HOLD, until) if visit.run_id in held else _judged(visit, Outcome.SEND) for visit in batch.visits]

    @activity.defn(name="send_messages")
    async def send_messages(self, batch: VisitBatch) -> list[SendResult]:
        outcomes = {"sent": SendOutcome.ACCEPTED, "failed": SendOutcome.GAVE_UP}
        taken = [each for each in batch.visits if self._fate(batch, each) == "sent"]
        self.given.update((each.contact_id, batch.scope.version_id, each.step_id, each.visit) for each in taken)
        return [
            SendResult(run_id=visit.run_id, outcome=outcomes[self._fate(batch, visit)], reason="drawn", delivery_id=uuid4())
            for visit in batch.visits
        ]

    @activity.defn(name="choose_branches")
    async def choose_branches(self, batch: VisitBatch) -> list[StepAnswer]:
        return [StepAnswer(run_id=each.run_id, index=self.worlds[each.run_id].branch(*_place(batch, each))) for each in batch.visits]

    @activity.defn(name="plan_waits")
    async def plan_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        return [self._planned(batch, each) for each in batch.visits]

    def _planned(self, batch: VisitBatch, visit: StepVisit) -> StepAnswer:
        world = self.worlds[visit.run_id]
        hours = 1 if world.simulated else world.planned_hours(*_place(batch, visit))
        if hours:
            return StepAnswer(run_id=visit.run_id, until=batch.now + hours * HOUR)
        return StepAnswer(run_id=visit.run_id, reason="date_passed")

    @activity.defn(name="open_waits")
    async def open_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._matches(batch, "early")

    @activity.defn(name="close_waits")
    async def close_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._matches(batch, "during", "last")

    def _matches(self, batch: VisitBatch, *moments: str) -> list[StepAnswer]:
        matched = {each.run_id: self.worlds[each.run_id].awaited(*_place(batch, each)) in moments for each in batch.visits}
        return [StepAnswer(run_id=run_id, index=0 if found else None) for run_id, found in matched.items()]

    @activity.defn(name="perform_steps")
    async def perform_steps(self, batch: VisitBatch) -> list[StepAnswer]:
        return [self._done(batch, each) for each in batch.visits]

    def _done(self, batch: VisitBatch, visit: StepVisit) -> StepAnswer:
        kept = self._kept(batch, visit)
        match "done" if kept else self.worlds[visit.run_id].deed(*_place(batch, visit), visit.round):
            case "failed":
                return StepAnswer(run_id=visit.run_id, failed=True, reason="drawn")
            case "again":
                return StepAnswer(run_id=visit.run_id, retry_at=batch.now + HOUR, reason="drawn")
            case "refused":
                return StepAnswer(run_id=visit.run_id, refused=True, reason="not_possible")
            case _:
                return StepAnswer(run_id=visit.run_id)

    @activity.defn(name="record_audit")
    async def record_audit(self, batch: AuditBatch) -> None:
        for each in batch.transitions:
            before = self.lines.setdefault(each.run_id, {}).setdefault(each.sequence, each)
            assert before == each, "two different things happened to a run under the same number"

    @activity.defn(name="hand_over_runs")
    async def hand_over_runs(self, handed: HandOver) -> None:
        for state in handed.runs:
            await self._start([state], handed.order.version_id)

    # --- the record ------------------------------------------------------------------------------------------------------

    def newest(self, run: UUID) -> Transition:
        return self.lines[run][max(self.lines[run])]

    def finished(self, run: UUID) -> bool:
        return run in self.lines and self.newest(run).phase in FINISHED

    def path(self, run: UUID) -> list[Step]:
        """Without what was said to the whole workflow, and what was said but could not be obeyed at once."""
        mine = [self.lines[run][sequence] for sequence in sorted(self.lines[run])]
        foretold = [each for each in mine if each.actor_id != EVERYBODY and each.kind not in REQUESTS]
        return [(each.kind, each.step_id, each.visit) for each in foretold]

    def over(self) -> bool:
        return len(self.settled) == len(self.worlds)

    def _replay(self, run: UUID) -> Begin | None:
        """How the replay begins that a run gets which is over; None: it gets none."""
        end, version, begin = self.newest(run), self.versions[run], self.begins[run]
        world = self.worlds[run]
        again = world.replay(run, version, end.reason, end.step_id or "")
        if again is None:
            return None
        chain = [(self.begins[each], self._told(each)) for each in self.chains[begin.contact]]
        return replay(again[0], world.of(version), version, again[1], chain)

    def _told(self, run: UUID) -> list[Told]:
        lines = [self.lines[run][sequence] for sequence in sorted(self.lines[run])]
        return [Told(each.kind, each.step_id, each.visit, each.reason, each.details.get("to")) for each in lines]

    def conserves(self) -> None:
        """By the record alone: whoever has entered is in exactly one phase, and nobody goes on after the end."""
        phases: Counter[str] = Counter()
        entered = 0
        for lines in list(self.lines.values()):
            entered += sum(each.kind == "entered" for each in lines.values())
            phases[lines[max(lines)].phase] += 1
            ends = [sequence for sequence, each in lines.items() if each.phase in FINISHED]
            assert ends in ([], [max(lines)]), "something happened to a run after its end"
        assert entered == sum(phases.values()), (entered, phases)
        assert set(phases) <= set(Phase)

    # --- what people say -------------------------------------------------------------------------------------------------

    async def operate(self) -> None:
        """Who is over is replayed, if that is drawn. Everybody who waits for a person now is spoken to, those of one workflow together."""
        for run in [run for run in self.worlds if run not in self.settled and self.finished(run)]:
            self.settled.add(run)
            if (begin := self._replay(run)) is not None:
                await self._begin(self.worlds[run], [begin])
        resting: dict[str, list[Resting]] = {}
        for run in self.worlds.keys() - self.settled:
            if (found := self._resting(run)) is not None:
                resting.setdefault(self.workflows[run], []).append(found)
        for name, those in resting.items():
            await self._speak(self.server.client.get_workflow_handle(name), those)

    def _resting(self, run: UUID) -> Resting | None:
        said = [each for each in self.lines.get(run, {}).values() if each.kind not in (*REMARKS, *REQUESTS)]
        last = max(said, key=lambda each: each.sequence, default=None)
        if last is None or last.kind not in ("review_asked", "parked") or self.answered.get(run) == last.sequence:
            return None
        self.answered[run] = last.sequence
        self.rests[run] += 1
        step, parked = last.step_id or "", last.kind == "parked"
        speech = self.worlds[run].speech(run, self.versions[run], self.rests[run], step, parked)
        return Resting(run, Place(step_id=step, visit=last.visit), last.sequence, speech)

    async def _speak(self, handle: WorkflowHandle[Any, Any], resting: Sequence[Resting]) -> None:
        for each in resting:
            for word in each.speech.asides:
                await self._aside(handle, each, word)
        alone = [each for each in resting if each.speech.wrap == "pause"]
        all_paused = any(each.speech.wrap == "journey" for each in resting)
        for each in alone:
            await self._control(handle, "pause", [each])
        if all_paused:
            await handle.signal("control", _journey("pause"))
        await self._last_words(handle, resting)
        for each in resting:
            await self._obeyed(each)
        if all_paused:
            await self._signal(handle, "control", _journey("resume"))
        for each in alone:
            if not self.finished(each.run):
                await self._control(self.server.client.get_workflow_handle(self.workflows[each.run]), "resume", [each])

    async def _aside(self, handle: WorkflowHandle[Any, Any], here: Resting, word: Word) -> None:
        match word.kind:
            case "pause":
                await self._control(handle, "pause", [here], twice=True)
                await self._control(handle, "resume", [here])
            case "everybody":
                await self._control(handle, "pause", [here], everybody=True)
                await self._control(handle, "resume", [here], everybody=True)
            case "journey" | "spread":
                await handle.signal("control", _journey("pause"))
                await handle.signal("control", _journey("resume", HOUR if word.kind == "spread" else None))
            case "late":  # somebody saw it at an earlier visit
                earlier = Place(step_id=here.place.step_id, visit=(here.place.visit or 1) - 1)
                order = RunControl(command="skip", run_ids=[here.run], places={str(here.run): earlier})
                [answer] = await handle.execute_update("control_runs", order, result_type=list[RunControlled])
                assert (answer.changed, answer.why) == (False, "moved_on")
            case "wrong":
                parked = self.lines[here.run][here.sequence].kind == "parked"
                [answer] = await self._control(handle, "approve" if parked else "retry", [here])
                assert (answer.changed, answer.why) == (False, "wrong_phase")
            case "matched":
                late = RunMessage(run_id=here.run, kind="matched", step_id="elsewhere", visit=9, index=0)
                await handle.signal("tell", RunMessages(messages=[late, RunMessage(run_id=here.run, kind="reconsider")]))
            case "variables":
                told = RunMessage(run_id=here.run, kind="variables", names=["amount"], actor_kind="user")
                await handle.signal("tell", RunMessages(messages=[told]))
            case command:
                await self._control(handle, command, [here], to_step=word.to_step)

    async def _last_words(self, handle: WorkflowHandle[Any, Any], resting: Sequence[Resting]) -> None:
        """Each its own; those who hear the same, and one of them in bulk, together. Moves last: a word in bulk is for who is still here."""
        together: dict[tuple[str, str | None], list[Resting]] = {}
        for each in resting:
            together.setdefault((each.speech.last.kind, each.speech.last.to_step), []).append(each)
        for (kind, to_step), those in sorted(together.items(), key=lambda said: said[0][0] == "move"):
            twice, bulk = any(each.speech.last.twice for each in those), any(each.speech.last.bulk for each in those)
            match kind:
                case "exit" | "replay":
                    reason = REPLAYED if kind == "replay" else f"exit_rule:{LEFT}"
                    exits = [RunMessage(run_id=each.run, kind="exit", reason=reason) for each in those] * 2
                    await handle.signal("tell", RunMessages(messages=exits))
                case "move":
                    await self._move(handle, those)
                case _:
                    groups = [those] if bulk else [[each] for each in those]
                    for group in groups:
                        answers = await self._control(handle, kind, group, to_step=to_step, twice=twice, bulk=bulk)
                        changed = {answer.run_id for answer in answers if answer.changed}
                        assert changed == {each.run for each in group}

    async def _move(self, handle: WorkflowHandle[Any, Any], those: Sequence[Resting]) -> None:
        world = self.worlds[those[0].run]
        choices = {each.place.step_id: MoveChoice(step_id=each.speech.last.to_step) for each in those}
        order = MoveOrder(
            plan_id=uuid4(), version_id=world.next_version_id, choices=choices, run_ids=[each.run for each in those]
        )  # only these stand there for their own reasons; others at the step are moved when their turn comes
        await handle.execute_update("move_runs", order)

    async def _control(
        self,
        handle: WorkflowHandle[Any, Any],
        command: str,
        those: Sequence[Resting],
        *,
        to_step: str | None = None,
        twice: bool = False,
        bulk: bool = False,
        everybody: bool = False,
    ) -> list[RunControlled]:
        """An update about these runs, or about all of the workflow: in bulk the others are seen where they do not stand."""
        runs = [each.run for each in those]
        others = [run for run, name in self.workflows.items() if name == handle.id and run not in runs]
        places = {str(each.run): each.place for each in those} | {str(run): Place(step_id="elsewhere") for run in others}
        order = RunControl.model_validate(
            {
                "command": command,
                "run_ids": [*runs, *others] if bulk or everybody else runs,
                "places": places if bulk else {},
                "to_step": to_step,
                "operation_id": uuid4() if bulk or everybody else None,
                "actor_id": EVERYBODY if everybody else None,
            }
        )
        update = str(uuid4())
        answers: list[RunControlled] = await handle.execute_update("control_runs", order, id=update, result_type=list[RunControlled])
        if twice:
            try:
                assert await handle.execute_update("control_runs", order, id=update, result_type=list[RunControlled]) == answers
            except RPCError as error:  # that was the end of its last run
                assert error.status is RPCStatusCode.NOT_FOUND
        return answers

    async def _signal(self, handle: WorkflowHandle[Any, Any], name: str, told: Control) -> None:
        try:
            await handle.signal(name, told)
        except RPCError as error:  # nobody is there any more
            assert error.status is RPCStatusCode.NOT_FOUND

    async def _obeyed(self, here: Resting) -> None:
        """The run has done as it was told, and that is on record."""
        while True:
            since = [each for sequence, each in self.lines[here.run].items() if sequence > here.sequence]
            if any(each.kind not in (*REMARKS, *REQUESTS) for each in since):
                return
            await asyncio.sleep(0.01)


def _judged(visit: StepVisit, verdict: Outcome, until: datetime | None = None) -> Judgement:
    return Judgement(run_id=visit.run_id, verdict=verdict, reason=None if verdict is Outcome.SEND else "drawn", hold_until=until)


def _place(batch: VisitBatch, visit: StepVisit) -> tuple[UUID, UUID, str, int]:
    return visit.run_id, batch.scope.version_id, visit.step_id, visit.visit


def _journey(command: Literal["pause", "resume"], spread: timedelta | None = None) -> Control:
    return Control(
        organization_id=uuid4(),
        kind=ControlledKind.JOURNEY,
        id=uuid4(),
        command=command,
        request_id=uuid4(),
        spread=spread,
        actor_id=EVERYBODY,
    )
