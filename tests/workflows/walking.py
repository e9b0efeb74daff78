"""The path that the pure interpreter takes through a drawn world, on a clock of its own."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from models.domain.journey import interpreter
from models.domain.journey.definition import Definition, WaitForStep
from models.domain.journey.interpreter import AwaitOperator, Change, Progress, Question, Send, WaitUntil
from models.domain.journey.run import FINISHED, Phase, RunState
from models.domain.journey.steps.base import Answer
from models.domain.journey.webhook_tries import pause_after
from models.domain.wait_time import shared_instant
from tests.workflows.chains import Begin, Told, replay
from tests.workflows.worlds import LEFT, REPLAYED, Speech, Word, World

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
THINKING = timedelta(hours=1)  # how long a person takes
Step = tuple[str, str | None, int | None]  # kind of change, step, visit


@dataclass
class Walk:
    """`lines`: what happened and when. `calls`, `events` and `said` are what a simulation has to be told in order to find the same."""

    state: RunState
    version: UUID  # on which it ended
    lines: list[tuple[datetime, Change]] = field(default_factory=list)
    calls: dict[str, list[str]] = field(default_factory=dict)  # by step, how each try of its webhook ended
    events: list[tuple[datetime, str]] = field(default_factory=list)
    said: list[tuple[datetime, Word]] = field(default_factory=list)

    @property
    def path(self) -> list[Step]:
        return [(change.kind, change.step_id, change.visit) for _, change in self.lines]


def walk(world: World, run: UUID) -> Walk:
    return _Walker(world, _first(world, run)).walk()


def walk_all(world: World, run: UUID) -> dict[UUID, Walk]:
    """The run, its replay, the replay's replay, …"""
    begin: Begin | None = _first(world, run)
    found: dict[UUID, Walk] = {}
    chain: list[tuple[Begin, list[Told]]] = []
    while begin is not None:
        walked = found[begin.run] = _Walker(world, begin).walk()
        chain.insert(0, (begin, [_told(change) for _, change in walked.lines]))
        again = world.replay(begin.run, walked.version, walked.state.reason, walked.state.step_id or "")
        begin = None if again is None else replay(again[0], world.of(walked.version), walked.version, again[1], chain)
    return found


def _first(world: World, run: UUID) -> Begin:
    return Begin(run, run, world.version_id, world.definition.start)


def _told(change: Change) -> Told:
    return Told(change.kind, change.step_id, change.visit, change.reason, change.details.get("to"))


class _Walker:
    def __init__(self, world: World, begin: Begin) -> None:
        self.world, self.begin, self.run, self.version = world, begin, begin.run, begin.version
        self.now, self.rests = NOW, 0
        self.tries: Counter[tuple[str, int]] = Counter()  # by step and visit
        self.walked = Walk(begin.state, begin.version)

    @property
    def state(self) -> RunState:
        return self.walked.state

    @property
    def definition(self) -> Definition:
        return self.world.of(self.version)

    def walk(self) -> Walk:
        self._apply(interpreter.enter(self.definition, self.state, self.now))
        while (command := interpreter.next_command(self.definition, self.state)) is not None:
            match command:
                case Send():
                    self._send(command)
                case Question(name="perform_steps"):
                    self._perform(command)
                case Question():
                    self._apply(interpreter.answered(self.definition, self.state, self._answer(command), self.now))
                case AwaitOperator() | WaitUntil(at=None):
                    self._listen()
                case WaitUntil(at=at) if at is not None:
                    self._wait(at)
        self.walked.version = self.version
        return self.walked

    def _apply(self, progress: Progress) -> None:
        self.walked.lines += [(self.now, change) for change in progress.changes]
        self.walked.state = replace(progress.state, sequence=progress.state.sequence + len(progress.changes))

    # --- what activities answer ------------------------------------------------------------------------------------------

    def _send(self, send: Send) -> None:
        kept = self.begin.keeps(self.definition, send.step_id, send.visit)
        match "sent" if kept else self.world.send(self.run, self.version, send.step_id, send.visit, send.round):
            case "sent":
                self._apply(interpreter.sent(self.definition, self.state, self.now, {}))
            case "not_sent":
                self._apply(interpreter.not_sent(self.definition, self.state, self.now, "no_consent"))
            case "held":
                self._apply(interpreter.held(self.state, self.now + THINKING, "quiet_hours"))
            case _:
                self._fail()

    def _perform(self, asked: Question) -> None:
        kept = self.begin.keeps(self.definition, asked.step_id, asked.visit)
        deed = "done" if kept else self.world.deed(self.run, self.version, asked.step_id, asked.visit, asked.round)
        self.walked.calls.setdefault(asked.step_id, []).append(deed)
        self.tries[asked.step_id, asked.visit] += 1
        match deed:
            case "failed":
                self._fail()
            case "again":
                pause = pause_after(self.tries[asked.step_id, asked.visit])
                self._apply(interpreter.held(self.state, shared_instant(self.now + pause), "drawn"))
            case _:
                refused = deed == "refused"
                answer = Answer(refused=refused, reason="not_possible" if refused else None)
                self._apply(interpreter.answered(self.definition, self.state, answer, self.now))

    def _fail(self) -> None:
        if self.world.on_error == "skip":
            self._apply(interpreter.pass_over(self.definition, self.state, self.now, "drawn"))
        else:
            self._apply(interpreter.park(self.state, "drawn"))

    def _answer(self, asked: Question) -> Answer:
        place = (self.run, self.version, asked.step_id, asked.visit)
        match asked.name:
            case "choose_branches":
                return Answer(index=self.world.branch(*place))
            case "plan_waits" if self.world.simulated:
                return Answer(until=_nine_o_clock(self.now))
            case "plan_waits":
                hours = self.world.planned_hours(*place)
                return Answer(until=self.now + timedelta(hours=hours)) if hours else Answer(reason="date_passed")
            case "open_waits":
                return self._matched(NOW) if self.world.awaited(*place) == "early" else Answer()
            case _:
                return self._matched(self.now) if self.world.awaited(*place) in ("during", "last") else Answer()

    def _matched(self, at: datetime) -> Answer:
        self.walked.events.append((at, self.state.step_id or ""))
        return Answer(index=0)

    def _wait(self, at: datetime) -> None:
        step, state = self.definition.steps[self.state.step_id or ""], self.state
        during = state.phase is Phase.WAITING and isinstance(step, WaitForStep)
        if during and self.world.awaited(self.run, self.version, state.step_id or "", state.visit) == "during":
            self.now += (at - self.now) / 2
            found = self._matched(self.now)
            progress = interpreter.matched(self.definition, state, self.now, state.step_id or "", state.visit, found)
            assert progress is not None
            self._apply(progress)
        else:
            self.now = max(self.now, at)
            self._apply(interpreter.wake(self.definition, state, self.now))

    # --- what people say -------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self.now += THINKING
        self.rests += 1
        parked = self.state.phase is Phase.NEEDS_ATTENTION
        speech = self.world.speech(self.run, self.version, self.rests, self.state.step_id or "", parked)
        for word in in_order(speech):
            if self.state.phase not in FINISHED:
                self._hear(word)
                self.walked.said.append((self.now, word))

    def _hear(self, word: Word) -> None:
        state, definition, to_step = self.state, self.definition, word.to_step or ""
        match word.kind:
            case "pause":
                self._apply(Progress(replace(state, paused=True), (_line("paused", state),)))
            case "resume":
                self._apply(Progress(replace(state, paused=False), (_line("resumed", state),)))
            case "variables":
                self._apply(interpreter.variables_changed(definition, state, ["amount"], self.now))
            case "cancel_step" if to_step == state.step_id:
                self._apply(interpreter.skip(definition, state, self.now))
            case "cancel_step" if to_step not in state.skips:
                self._apply(interpreter.cancel_step(state, to_step))
            case "restore_step" if to_step in state.skips:
                self._apply(interpreter.restore_step(state, to_step))
            case "approve" | "reject":
                reviewed = interpreter.reviewed(definition, state, self.now, word.kind == "approve", paused=state.paused)
                self._apply(reviewed or Progress(state))
            case "retry":
                self._apply(interpreter.retry(state))
            case "skip":
                self._apply(interpreter.skip(definition, state, self.now))
            case "jump":
                self._apply(interpreter.jump(definition, state, to_step, self.now))
            case "exit":
                self._apply(interpreter.leave(state, f"exit_rule:{LEFT}"))
            case "replay":
                self._apply(interpreter.leave(state, REPLAYED))
            case "cancel":
                self._apply(interpreter.cancel(state, None))
            case "move":
                self.version = self.world.next_version_id
                self._apply(interpreter.enter(self.definition, interpreter.moving(state, to_step), self.now))
            case _:
                pass  # changes nothing, or is said to everybody


def in_order(speech: Speech) -> list[Word]:
    """What concerns this run alone, in the order in which it hears it."""
    words: list[Word] = []
    for aside in speech.asides:
        words += [aside, Word("resume")] if aside.kind == "pause" else [aside]
    return [*words, Word("pause"), speech.last, Word("resume")] if speech.wrap == "pause" else [*words, speech.last]


def _line(kind: str, state: RunState) -> Change:
    return Change(kind, state.phase, state.step_id, state.visit)


def _nine_o_clock(now: datetime) -> datetime:
    """The next one, in UTC."""
    at = now.replace(hour=9, minute=0, second=0, microsecond=0)
    return at if at > now else at + timedelta(days=1)
