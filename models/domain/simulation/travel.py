"""One contact's trip through a journey under a virtual clock. Pure.

`models.domain.journey.interpreter` says what the run does; this says what the world answers, as the activities do: the same decisions,
rules, waiting times and templates, about a contact in memory. Activities take no time here. What the script says of a moment comes
before what the journey does at that moment, so an event at the very end of a wait still beats its timeout.
"""

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from models.domain.journey import interpreter
from models.domain.journey.definition import WaitForStep
from models.domain.journey.entry import EventTrigger
from models.domain.journey.interpreter import AwaitOperator, Command, Question, Send, WaitUntil
from models.domain.journey.run import FINISHED
from models.domain.segment_memory import Subject, holds, turns
from models.domain.simulation.meeting import Meeting
from models.domain.simulation.person import Person
from models.domain.simulation.sending import Sending
from models.domain.simulation.trip import Plan, Trip

VARIABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")  # what properties of an event become variables


def travel(plan: Plan, person: Person, run_id: UUID) -> Trip:
    """The whole trip of a person, who is changed on the way."""
    return Traveller(plan, person, run_id).travel()


@dataclass(frozen=True)
class _Turns:
    """When time alone may turn rules about the subject as it is: the moments ahead, the latest first."""

    subject: Subject | None = None
    about: tuple[Any, ...] = ()
    ahead: list[datetime] = field(default_factory=list)


class Traveller(Sending, Meeting):
    """Drives one run. What the world is asked for are `answer`, `send`, `rest` and `next_turn`: a test may have others answer."""

    def __init__(self, plan: Plan, person: Person, run_id: UUID) -> None:
        super().__init__(plan, person, run_id)
        self.ahead = 0  # of the script, the first that has not happened
        self.looks = 0
        self._turns = _Turns()

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
            self.plan.heed()
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
