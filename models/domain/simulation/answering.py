"""What the world answers a simulated run that stands at a step. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from models.domain.journey import interpreter
from models.domain.journey.definition import BranchStep, Step, WaitForStep, WaitStep
from models.domain.journey.steps.base import Answer
from models.domain.segment_memory import Happened, holds
from models.domain.simulation.effects import EFFECTS, Heard, Scene
from models.domain.simulation.position import Position
from models.domain.wait_time import Place, plan


class Answering(Position):
    """What the activities that answer for steps would say."""

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
        planned = plan(step, place, None if step.date is None else self._value(step.date.field), self.state.asks_from or self.now)
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
