"""Definition language version 1: a journey as a graph of steps by id, and the rules around it. Pure."""

from datetime import datetime
from functools import cached_property
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field, StrictInt

from models.domain.errors import NotFound
from models.domain.journey.entry import EntryRules, ExitRule, Goal
from models.domain.journey.steps.base import Channel as Channel
from models.domain.journey.steps.base import Model, StepId, StepModel
from models.domain.journey.steps.base import Purpose as Purpose
from models.domain.journey.steps.branch import BranchCondition as BranchCondition
from models.domain.journey.steps.branch import BranchStep as BranchStep
from models.domain.journey.steps.call_webhook import CallWebhookStep as CallWebhookStep
from models.domain.journey.steps.enter_journey import EnterJourneyStep as EnterJourneyStep
from models.domain.journey.steps.exit import ExitStep as ExitStep
from models.domain.journey.steps.notify_team import NotifyTeamStep as NotifyTeamStep
from models.domain.journey.steps.review import ReviewStep as ReviewStep
from models.domain.journey.steps.send import SendStep as SendStep
from models.domain.journey.steps.split import SplitStep as SplitStep
from models.domain.journey.steps.subscription import SubscribeStep as SubscribeStep
from models.domain.journey.steps.subscription import UnsubscribeStep as UnsubscribeStep
from models.domain.journey.steps.update_contact import UpdateContactStep as UpdateContactStep
from models.domain.journey.steps.wait import WaitStep as WaitStep
from models.domain.journey.steps.wait_for import WaitForStep as WaitForStep
from models.domain.journey.written import Moment

Step = Annotated[
    SendStep
    | WaitStep
    | WaitForStep
    | BranchStep
    | SplitStep
    | UpdateContactStep
    | SubscribeStep
    | UnsubscribeStep
    | CallWebhookStep
    | NotifyTeamStep
    | EnterJourneyStep
    | ReviewStep
    | ExitStep,
    Field(discriminator="kind"),
]


AnyStep = TypeVar("AnyStep", bound=StepModel)


class Definition(Model):
    """`ends_at`: from then on nobody enters; with `at_end` "exit", those who are inside leave at their next step.
    `max_visits`: a run that comes to the same step more often leaves, with the reason `loop_limit`."""

    language: Literal[1] = 1
    start: StepId
    steps: dict[StepId, Step]
    entry: EntryRules = EntryRules()
    exits: Annotated[tuple[ExitRule, ...], Field(max_length=20)] = ()
    goals: Annotated[tuple[Goal, ...], Field(max_length=20)] = ()
    ends_at: Moment | None = None
    at_end: Literal["finish", "exit"] = "finish"
    max_visits: Annotated[StrictInt, Field(ge=1, le=10_000)] = 100

    @cached_property
    def looping(self) -> frozenset[str]:
        """The steps from which a loop can be entered or that lie on one: only they can be arrived at twice."""
        ways_on = {step_id: [target for target in targets(step) if target in self.steps] for step_id, step in self.steps.items()}
        sources: dict[str, list[str]] = {step_id: [] for step_id in self.steps}
        for step_id, onward in ways_on.items():
            for target in onward:
                sources[target].append(step_id)
        left = {step_id: len(onward) for step_id, onward in ways_on.items()}
        ends = [step_id for step_id, count in left.items() if count == 0]
        while ends:  # what leads only to ends is on no loop
            step_id = ends.pop()
            del left[step_id]
            for source in sources[step_id]:
                left[source] -= 1
                if left[source] == 0:
                    ends.append(source)
        return frozenset(left)

    def step(self, step_id: str, kind: type[AnyStep]) -> AnyStep:
        """The step of this id.

        Raises:
            NotFound: there is none, or it is of another kind (a workflow of another version asked).
        """
        step = self.steps.get(step_id)
        if not isinstance(step, kind):
            raise NotFound("step", step_id)
        return step

    def has_ended(self, now: datetime) -> bool:
        return self.ends_at is not None and now >= self.ends_at


def in_reading_order(definition: Definition) -> list[str]:
    """The steps as one meets them from the start, and then those that nobody meets."""
    found: dict[str, None] = {}
    ahead = [definition.start]
    while ahead:
        step_id = ahead.pop(0)
        if step_id in definition.steps and step_id not in found:
            found[step_id] = None
            ahead += targets(definition.steps[step_id])
    return [*found, *(step_id for step_id in sorted(definition.steps) if step_id not in found)]


KINDS: dict[str, type[StepModel]] = {step.model_fields["kind"].default: step for step in get_args(get_args(Step)[0])}


def targets(step: StepModel) -> tuple[str, ...]:
    """Where the step leads, in the order it names them; a target stands as often as it is named."""
    return tuple(target for _, target in step.exits() if target is not None)
