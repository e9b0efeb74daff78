"""Steps that do something to the world and go on: the one question that they share. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar

from models.domain.errors import Problem
from models.domain.journey.run import RunState
from models.domain.journey.steps.base import Answer, Exits, Go, Outcome, StepId, StepModel


def printed_nowhere(path: str, text: str, instead: str) -> Iterator[Problem]:
    """A template where text is taken as it stands."""
    if "{{" in text or "{%" in text:
        yield Problem(path, "not_a_template", f"No template is printed here, and this would be taken as it stands. {instead}")


class EffectStep(StepModel):
    """`activities/effects/<kind>.py` does it, for a batch of runs. `done` is what the timeline calls it."""

    question: ClassVar[str | None] = "perform_steps"
    says: ClassVar[frozenset[str]] = frozenset({"not_done"})  # beside `done`
    done: ClassVar[str]

    next: StepId | None = None

    def exits(self) -> Exits:
        yield "next", self.next

    def answered(self, state: RunState, answer: Answer, now: datetime) -> Outcome:
        return Go(self.next, "not_done" if answer.refused else self.done, answer.reason, answer.details)
