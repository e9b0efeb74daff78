"""`exit`: the journey ends here. Pure. The smallest of the steps; docs/adding-a-step.md walks through it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.run import RunState
from models.domain.journey.steps.base import Code, Leave, Outcome, StepModel

# What runs end for that no step of theirs ends: under the same reason nobody could tell the one from the other.
OURS = frozenset(
    {
        *("replayed", "journey_ended", "loop_limit", "overdue", "no_longer_fits", "version_replaced", "exit_rule", "goal"),
        *("campaign_cancelled", "journey_cancelled", "workflow_cancelled", "workflow_lost"),
    }
)


class ExitStep(StepModel):
    kind: Literal["exit"] = "exit"
    reason: Code = "exit_step"  # shown on the timeline

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if self.reason in OURS:
            yield Problem(f"{path}.reason", "forbidden", "Runs end for this reason by themselves; choose another code.")

    def arrive(self, state: RunState, now: datetime) -> Outcome:
        return Leave(self.reason)
