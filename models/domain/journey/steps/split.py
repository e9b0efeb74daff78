"""`split`: a share of the contacts each way, the same way for the same contact at the same step, always. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StrictBool, StrictInt

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.run import RunState
from models.domain.journey.steps.base import Exits, Go, Model, Name, Outcome, StepId, StepModel, fraction

MAX_ARMS = 20


class Arm(Model):
    """`holdout`: these contacts are left alone, to be compared with; where a run goes is `next`, like any other arm's, and a draft is not
    published in which a message can be reached from there."""

    name: Name = ""
    weight: Annotated[StrictInt, Field(ge=0, le=1_000_000)]
    holdout: StrictBool = False
    next: StepId | None = None


class SplitStep(StepModel):
    says: ClassVar[frozenset[str]] = frozenset({"split"})

    kind: Literal["split"] = "split"
    arms: tuple[Arm, ...]
    seed: Annotated[str, Field(max_length=100)] = ""  # empty in a draft: the journey's own; the same seed and step divide alike

    def exits(self) -> Exits:
        for index, arm in enumerate(self.arms):
            yield f"arms[{index}].next", arm.next

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        if not 2 <= len(self.arms) <= MAX_ARMS:
            yield Problem(f"{path}.arms", "wrong_number", f"A split has 2 to {MAX_ARMS} arms.")
        elif not any(arm.weight for arm in self.arms):
            yield Problem(f"{path}.arms", "no_weight", "At least one arm needs a weight above 0.")

    def frozen(self, facts: Facts) -> "SplitStep":
        return self.model_copy(update={"seed": self.seed or str(facts.journey_id or "")})

    def arrive(self, state: RunState, now: datetime) -> Outcome:
        index = self.choose(state)
        arm = self.arms[index]
        details = {"index": index, "name": arm.name, "next": arm.next, **({"holdout": True} if arm.holdout else {})}
        return Go(arm.next, "split", details=details)

    def choose(self, state: RunState) -> int:
        """Of the contact and the step alone: neither another visit nor another run chooses anew."""
        point = fraction(self.seed, state.step_id or "", state.contact_id) * sum(arm.weight for arm in self.arms)
        for index, arm in enumerate(self.arms):
            point -= arm.weight
            if point < 0:
                return index
        return max(index for index, arm in enumerate(self.arms) if arm.weight)
