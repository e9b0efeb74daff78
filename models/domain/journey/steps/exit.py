"""`exit`: the journey ends here. Pure. The smallest of the steps; docs/adding-a-step.md walks through it."""

from datetime import datetime
from typing import Literal

from models.domain.journey.run import RunState
from models.domain.journey.steps.base import Code, Leave, Outcome, StepModel


class ExitStep(StepModel):
    kind: Literal["exit"] = "exit"
    reason: Code = "exit_step"  # shown on the timeline

    def arrive(self, state: RunState, now: datetime) -> Outcome:
        return Leave(self.reason)
