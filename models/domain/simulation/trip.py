"""One contact's trip through a journey under a virtual clock. Pure.

`models.domain.journey.interpreter` says what the run does; this says what the world answers, as the activities do: the same decisions,
rules, waiting times and templates, about a contact in memory. Activities take no time here. What the script says of a moment comes
before what the journey does at that moment, so an event at the very end of a wait still beats its timeout.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from models.domain.contact import normalize_tags
from models.domain.decision import ConsentFacts, Decision, HourFacts, Outcome, decide_consent, decide_hours
from models.domain.journey import interpreter
from models.domain.journey.definition import (
    BranchStep,
    Definition,
    SendStep,
    Step,
    WaitForStep,
    WaitStep,
)
from models.domain.journey.entry import EventTrigger, Happens
from models.domain.journey.interpreter import AwaitOperator, Change, Command, Progress, Question, Send, WaitUntil
from models.domain.journey.run import FINISHED, Phase, RunState
from models.domain.journey.steps.base import Answer
from models.domain.quiet_hours import choose_zone, read_window
from models.domain.segment_memory import Happened, Subject, holds, turns
from models.domain.simulation.effects import EFFECTS, Heard, Scene
from models.domain.simulation.person import Person
from models.domain.simulation.scenario import ChangeNow, EventNow, Happening, World
from models.domain.simulation.surroundings import Message, Printer, Surroundings
from models.domain.template import Unsendable
from models.domain.wait_time import Place, plan

VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")  # what properties of an event become variables
MAX_COMMANDS = 2_000  # of one trip: a journey that goes on without end is cut off there


@dataclass(frozen=True)
class Plan:
    """What all trips of a simulation share. Times are aware UTC; nothing is looked at after `until`."""

    definition: Definition
    surroundings: Surroundings
    printer: Printer
    world: World
    script: Sequence[tuple[datetime, Happening]]
    start: datetime
    until: datetime
    max_commands: int = MAX_COMMANDS


@dataclass(frozen=True)
class Line:
    """One change of the run, dated."""

    at: datetime
    change: Change


@dataclass(frozen=True)
class Judged:
    """One decision about a message."""

    at: datetime
    check: str
    step_id: str
    visit: int
    round: int
    decision: Decision


@dataclass(frozen=True)
class Sent:
    """One message that the provider was given. `outcome`: what it said."""

    at: datetime
    step_id: str
    visit: int
    channel: str
    recipient: str
    message: Message
    outcome: str = "accepted"


@dataclass
class Trip:
    """What became of one contact. `cut`: it went on for so long that nothing more was looked at."""

    contact_id: UUID
    state: RunState
    ended_at: datetime
    lines: list[Line] = field(default_factory=list)
    decisions: list[Judged] = field(default_factory=list)
    messages: list[Sent] = field(default_factory=list)
    wakes: list[datetime] = field(default_factory=list)
    goals: dict[str, datetime] = field(default_factory=dict)
    assumed: set[str] = field(default_factory=set)  # steps whose webhook was taken to answer 200
    commands: int = 0
    cut: bool = False
    refused: str | None = None  # why the contact does not enter

    @property
    def status(self) -> str:
        return "not_entered" if self.refused else str(self.state.phase)

    @property
    def reason(self) -> str | None:
        return self.refused or self.state.reason


# What providers say, as the workflow hears it: the reason of the run's change, and whether a person has to decide.
_ANSWERS: Mapping[str, tuple[str, bool]] = {
    "bounced": ("mailbox_unknown", False),
    "opted_out": ("opted_out", False),
    "content_refused": ("content_refused", True),
    "gave_up": ("gave_up:transient", True),
    "unknown": ("unknown", True),
}


def travel(plan: Plan, person: Person, run_id: UUID) -> Trip:
    """The whole trip of a person, who is changed on the way."""
    return Traveller(plan, person, run_id).travel()


@dataclass(frozen=True)
class _Turns:
    """When time alone may turn rules about the subject as it is: the moments ahead, the latest first."""

    subject: Subject | None = None
    about: tuple[Any, ...] = ()
    ahead: list[datetime] = field(default_factory=list)


class Traveller:
    """Drives one run. What the world is asked for are `answer`, `send`, `rest` and `next_turn`: a test may have others answer."""

    def __init__(self, plan: Plan, person: Person, run_id: UUID) -> None:
        self.plan = plan
        self.definition = plan.definition
        self.person = person
        self.now = plan.start
        self.variables: dict[str, Any] = dict(plan.world.variables)
        self.entered_by: int | None = None
        self.state = RunState(run_id=run_id, contact_id=person.id, step_id=plan.definition.start)
        self.trip = Trip(person.id, self.state, plan.start)
        self.topics = plan.surroundings.topic_ids
        self.ahead = 0  # of the script, the first that has not happened
        self.tries: dict[tuple[str, int], int] = {}  # of a visit's webhook
        self.called: dict[str, int] = {}  # tries of a step's webhook, all visits
        self.consumed: set[int] = set()  # numbers of events that a wait has counted
        self.changed = False  # by the journey itself: rules look at it when the run rests next
        self._subject: Subject | None = None
        self._turns = _Turns()
        self.looks = 0

    def travel(self) -> Trip:
        self.trip.refused = self._refusal()
        if self.trip.refused is not None:
            return self.trip
        self._apply(interpreter.enter(self.definition, self.state, self.now))
        if any(rule.when is not None for rule in (*self.definition.exits, *self.definition.goals)):
            self._look_again()  # as a new run is looked at
        self._go()
        if self.state.phase in FINISHED:
            self.trip.ended_at = self.now
            self._count_late_goals()
        self.trip.state = self.state
        return self.trip

    def _refusal(self) -> str | None:
        """Why the contact does not enter; its event, if it enters by one, has happened."""
        if self.definition.has_ended(self.now):
            return "journey_ended"
        entering = self.plan.world.event
        if entering is None:
            return None
        event = self.person.meet(entering.name, entering.properties, self.now)
        self.entered_by = event.number
        triggers = [trigger for trigger in self.definition.entry.triggers if isinstance(trigger, EventTrigger)]
        about = replace(self.subject, event=event)
        if not any(one.event == event.name and (one.where is None or holds(one.where, about, self.now)) for one in triggers):
            return "no_trigger"
        named = {name: value for name, value in event.properties.items() if VARIABLE.fullmatch(name)}
        self.variables = {**named, **self.variables}
        self._subject = None
        return None

    def _go(self) -> None:
        while self.state.phase not in FINISHED:
            if max(self.trip.commands, self.looks) >= self.plan.max_commands:
                self.trip.cut, self.trip.ended_at = True, self.now
                return
            if self.state.leaving is not None:
                self._apply(interpreter.leave(self.state, self.state.leaving))
                continue
            command = interpreter.next_command(self.definition, self.state)
            assert command is not None
            if not self._must_rest(command):
                self.trip.commands += 1
                self._perform(command)
            elif self.changed:
                self._look_again()
            elif not self.rest(command.at if isinstance(command, WaitUntil) else None):
                self.trip.ended_at = self.now
                return

    def _must_rest(self, command: Command) -> bool:
        return isinstance(command, AwaitOperator) or (isinstance(command, WaitUntil) and (command.at is None or command.at > self.now))

    def _perform(self, command: Command) -> None:
        match command:
            case Send():
                self.send()
            case Question():
                self._hear(command.name, self.answer(command.name))
            case WaitUntil():
                self.trip.wakes.append(self.now)
                self._apply(interpreter.wake(self.definition, self.state, self.now))

    def _apply(self, progress: Progress) -> None:
        self.trip.lines += [Line(self.now, change) for change in progress.changes]
        self.state = replace(progress.state, sequence=progress.state.sequence + len(progress.changes))

    # --- time ---------------------------------------------------------------------------------------------------------

    def rest(self, wake_at: datetime | None) -> bool:
        """The next moment at which anything happens has come. False: there is none before the end."""
        script_at = self.plan.script[self.ahead][0] if self.ahead < len(self.plan.script) else None
        moments = [moment for moment in (script_at, self.next_turn(), wake_at) if moment is not None]
        if not moments or (nearest := min(moments)) > self.plan.until:
            return False
        self.now = max(nearest, self.now)
        if nearest == script_at:
            _, happening = self.plan.script[self.ahead]
            self.ahead += 1
            self._happen(happening)
        elif nearest != wake_at:
            self.looks += 1
            self._look()
        return True

    def next_turn(self) -> datetime | None:
        """When the passing of time alone may make a rule true that is looked at while the run rests."""
        rules = [rule.when for rule in self.definition.exits if rule.when is not None]
        rules += [goal.when for goal in self.definition.goals if goal.when is not None and goal.name not in self.trip.goals]
        step = self.definition.steps.get(self.state.step_id or "")
        if isinstance(step, WaitForStep):
            rules += [condition.when for condition in step.conditions]
        if not rules:
            return None
        subject, about = self.subject, (len(self.person.events), len(self.trip.goals), self.state.step_id)
        if self._turns.subject is not subject or self._turns.about != about:
            moments = {turn for rule in rules for turn in turns(rule, subject)}
            self._turns = _Turns(subject, about, sorted(moments, reverse=True))
        ahead = self._turns.ahead
        while ahead and ahead[-1] <= self.now:
            ahead.pop()
        return ahead[-1] if ahead else None

    def _count_late_goals(self) -> None:
        """What happens after the end still counts for goals."""
        if not self.definition.goals:
            return
        for at, happening in self.plan.script[self.ahead :]:
            if at > self.plan.until:
                return
            self.now = at
            self._happen(happening)

    # --- what happens -------------------------------------------------------------------------------------------------

    def _happen(self, happening: Happening) -> None:
        match happening:
            case Happening(event=EventNow() as event):
                self._event(self.person.meet(event.name, event.properties, self.now))
            case Happening(change=ChangeNow() as change):
                self._change(change)
            case Happening(consent=said) if said is not None:
                self.person.say(self.topics[said.topic], said.channel, said.status, self.now)
                self._look_again()
            case Happening(suppress=channel) if channel is not None:
                self.person.suppress(channel)
            case Happening(review=decision) if decision is not None:
                progress = interpreter.reviewed(self.definition, self.state, self.now, decision == "approved")
                if progress is not None and self.state.phase not in FINISHED:
                    self._apply(progress)
            case Happening(control=command) if command is not None and self.state.phase not in FINISHED:
                self._control(command)

    def _change(self, change: ChangeNow) -> None:
        fields = {name: getattr(change, name) for name in change.model_fields_set - {"attributes", "add_tags", "remove_tags"}}
        removed = normalize_tags(change.remove_tags)
        tags = normalize_tags([*(tag for tag in self.person.tags if tag not in removed), *change.add_tags])
        if self.person.change(fields, change.attributes, tags, self.now):
            self._look_again()

    def _control(self, command: str) -> None:
        match command:
            case "retry" if self.state.phase is Phase.NEEDS_ATTENTION:
                self._apply(interpreter.retry(self.state))
            case "skip":
                self._apply(interpreter.skip(self.definition, self.state, self.now))
            case "cancel":
                self._apply(interpreter.cancel(self.state, None))

    def _event(self, event: Happened) -> None:
        """As routing has it: exits, goals, waits; then whatever depends on how the contact is."""
        self._subject = None
        for rule in self.definition.exits:
            if self._is_about(rule, event):
                self._leave(f"exit_rule:{rule.name}")
        for goal in self.definition.goals:
            if self._is_about(goal, event):
                self._reach(goal.name)
        self._matched([event])
        self._look_again()

    def _is_about(self, rule: Happens, event: Happened) -> bool:
        return rule.event == event.name and (rule.where is None or holds(rule.where, replace(self.subject, event=event), self.now))

    def _look_again(self) -> None:
        """The contact has changed."""
        self.changed, self._subject = False, None
        self._look()
        self.state = interpreter.reconsidered(self.definition, self.state) if self.state.phase not in FINISHED else self.state

    def _look(self) -> None:
        for rule in self.definition.exits:
            if rule.when is not None and holds(rule.when, self.subject, self.now):
                self._leave(f"exit_rule:{rule.name}")
        for goal in self.definition.goals:
            if goal.when is not None and holds(goal.when, self.subject, self.now):
                self._reach(goal.name)
        self._matched([])

    def _leave(self, reason: str) -> None:
        if self.state.phase not in FINISHED and self.state.leaving is None:
            self.state = replace(self.state, leaving=reason)

    def _reach(self, name: str) -> None:
        goal = next(goal for goal in self.definition.goals if goal.name == name)
        if name in self.trip.goals or self.now > self.plan.start + goal.window:
            return
        self.trip.goals[name] = self.now
        if goal.exit:
            self._leave(f"goal:{name}")

    def _matched(self, events: Sequence[Happened]) -> None:
        """What the run waits for has happened, if it has: one of the events, or else a condition."""
        step = self.definition.steps.get(self.state.step_id or "")
        if self.state.phase is not Phase.WAITING or self.state.starts_at is not None or not isinstance(step, WaitForStep):
            return
        found = self._ended(step, events, conditions=not events)
        if found is not None:
            progress = interpreter.matched(self.definition, self.state, self.now, self.state.step_id or "", self.state.visit, found)
            assert progress is not None
            self._apply(progress)

    # --- answers ------------------------------------------------------------------------------------------------------

    @property
    def subject(self) -> Subject:
        if self._subject is None:
            self._subject = self.person.subject(self.topics, self.variables, self._began)
        return self._subject

    def _began(self, event: Happened) -> bool:
        """Whether the event came after the run's entry."""
        return event.number > self.entered_by if self.entered_by is not None else event.accepted_at >= self.plan.start

    def _step(self) -> Step:
        return self.definition.steps[self.state.step_id or ""]

    def _hear(self, question: str, answer: Heard) -> None:
        reason = answer.answer.reason or question
        if answer.failed:
            self._apply(interpreter.park(self.state, reason))
        elif answer.retry_at is not None:
            self._apply(interpreter.held(self.state, max(answer.retry_at, self.now), reason))
        else:
            self._apply(interpreter.answered(self.definition, self.state, answer.answer, self.now))

    def answer(self, question: str) -> Heard:
        step = self._step()
        match question, step:
            case "choose_branches", BranchStep():
                chosen = (index for index, one in enumerate(step.conditions) if holds(one.when, self.subject, self.now))
                return Heard(Answer(index=next(chosen, None)))
            case "plan_waits", WaitStep():
                return Heard(self._planned(step))
            case (("open_waits" | "close_waits"), WaitForStep()):
                return Heard(self._ended(step, self.person.events) or Answer())
            case _:
                return self._effect(step)

    def _planned(self, step: WaitStep) -> Answer:
        place = Place(self.person.fields.get("timezone"), self.plan.surroundings.timezone)
        planned = plan(step, place, None if step.date is None else self._value(step.date.field), self.now)
        return Answer(until=planned.until, reason=planned.reason, details=planned.details)

    def _value(self, name: str) -> Any:
        source, _, key = name.partition(".")
        if key:
            return (self.person.attributes if source == "attributes" else self.variables).get(key)
        found = self.person.fields.get(source)
        return found.isoformat() if isinstance(found, datetime) else found

    def _ended(self, step: WaitForStep, events: Sequence[Happened], conditions: bool = True) -> Answer | None:
        """How the wait ends now: by the first of the events, of its ways the first that fits; else by a condition."""
        for event in events:
            if event.number not in self.consumed and self._began(event):
                for index, awaited in enumerate(step.events):
                    about = awaited.event == event.name
                    if about and (awaited.where is None or holds(awaited.where, replace(self.subject, event=event), self.now)):
                        self.consumed.add(event.number)
                        return Answer(index=index, details={"event": event.name})
        for index, condition in enumerate(step.conditions if conditions else ()):
            if holds(condition.when, self.subject, self.now):
                return Answer(index=len(step.events) + index)
        return None

    def _effect(self, step: Step) -> Heard:
        step_id, visit = self.state.step_id or "", self.state.visit
        tries = self.tries[step_id, visit] = self.tries.get((step_id, visit), 0) + 1
        scene = Scene(
            person=self.person,
            variables=self.variables,
            now=self.now,
            began=self.plan.start,
            surroundings=self.plan.surroundings,
            printer=self.plan.printer,
            reply=lambda: self._reply(step_id),
            tries=tries,
        )
        heard = EFFECTS[step.kind](step, scene)
        self.changed = self.changed or scene.touched
        self._subject = None
        return heard

    def _reply(self, step_id: str) -> tuple[int, Any]:
        answers = self.plan.world.webhooks.get(step_id)
        if answers is None:
            self.trip.assumed.add(step_id)
            return 200, {}
        number = self.called.get(step_id, 0)
        self.called[step_id] = number + 1
        answer = answers[min(number, len(answers) - 1)]
        return answer.status, answer.body

    # --- a message ----------------------------------------------------------------------------------------------------

    def send(self) -> None:
        """consent-check → quiet-hours → send."""
        step = self._step()
        assert isinstance(step, SendStep)
        for check, decision in (("consent", self._consent(step)), ("quiet_hours", self._hours(step))):
            self.trip.decisions.append(Judged(self.now, check, self.state.step_id or "", self.state.visit, self.state.round, decision))
            if decision.outcome is not Outcome.SEND:
                return self._obey(decision)
        try:
            template = self.plan.surroundings.templates.get(step.template_version_id) if step.template_version_id else None
            message = self.plan.printer.message(step, template, self.person.row, self.variables)
        except Unsendable as unsendable:
            return self._apply(interpreter.park(self.state, unsendable.reason))
        self._hand_over(step, message)

    def _consent(self, step: SendStep) -> Decision:
        topic = self.plan.surroundings.topics.get(step.topic_id) if step.topic_id else None
        said = self.person.consents.get((step.topic_id, step.channel)) if step.topic_id else None
        facts = ConsentFacts(
            channel=step.channel,
            purpose=step.purpose,
            topic_id=step.topic_id,
            organization_status=self.plan.surroundings.status,
            contact_exists=True,
            has_address=self.person.address(step.channel) is not None,
            suppression_id=self.person.suppression(step.channel),
            topic_exists=topic is not None,
            topic_archived=topic is not None and topic.archived,
            consent=said.line if said is not None else None,
        )
        return decide_consent(facts)

    def _hours(self, step: SendStep) -> Decision:
        around = self.plan.surroundings
        zone = choose_zone(self.person.fields.get("timezone"), around.timezone)
        window = read_window(around.quiet_hours, step.channel)
        return decide_hours(HourFacts(step.channel, step.purpose, window, zone, step.in_quiet_hours == "drop"), self.now)

    def _obey(self, decision: Decision) -> None:
        reason = str(decision.reason or decision.outcome)
        if decision.outcome is Outcome.HOLD and decision.hold_until is not None:
            self._apply(interpreter.held(self.state, decision.hold_until, reason))
        else:
            self._apply(interpreter.not_sent(self.definition, self.state, self.now, reason))

    def _hand_over(self, step: SendStep, message: Message) -> None:
        step_id, visit = self.state.step_id or "", self.state.visit
        outcome = self.plan.world.sends.get(step_id, "accepted")
        address = self.person.address(step.channel) or ""
        self.trip.messages.append(Sent(self.now, step_id, visit, step.channel, address, message, outcome))
        if outcome == "opted_out":
            self.person.suppress(step.channel)
        if outcome == "accepted":
            self._apply(interpreter.sent(self.definition, self.state, self.now, {}))
            return
        reason, decide = _ANSWERS[outcome]
        parked = interpreter.park(self.state, reason) if decide else None
        self._apply(parked or interpreter.not_sent(self.definition, self.state, self.now, reason))
