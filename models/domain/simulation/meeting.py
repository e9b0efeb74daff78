"""What happens to a simulated run from outside: events, changes of the contact, somebody's word. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from models.domain.contact import normalize_tags
from models.domain.journey import interpreter
from models.domain.journey.definition import WaitForStep
from models.domain.journey.entry import Happens
from models.domain.journey.run import FINISHED, Phase
from models.domain.segment_memory import Happened, holds
from models.domain.simulation.answering import Answering
from models.domain.simulation.scenario import ChangeNow, EventNow, Happening


class Meeting(Answering):
    """As routing and control have it."""

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
        self.state = interpreter.reconsidered(self.definition, self.state, self.now) if self.state.phase not in FINISHED else self.state

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
