"""Definition language version 1: a journey as a graph of steps by id. Pure."""

from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

StepId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Channel = Literal["email", "sms"]
Purpose = Literal["marketing", "transactional"]
Name = Annotated[str, Field(max_length=200)]


class Model(BaseModel):
    """Frozen; unknown fields are refused when read from a designer, see `check`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SendStep(Model):
    kind: Literal["send"] = "send"
    name: Name = ""
    channel: Channel = "email"
    template_id: UUID
    template_version_id: UUID | None = None  # None in a draft: the newest; always set in a published version
    purpose: Purpose = "marketing"
    topic_id: UUID | None = None  # required for marketing
    connection_id: UUID | None = None  # None: the organization's default connection of the channel
    on_refused: Literal["continue", "exit"] = "continue"  # what a run does when the message must not be sent
    next: StepId | None = None  # None: the run completes


class WaitStep(Model):
    kind: Literal["wait"] = "wait"
    name: Name = ""
    duration: timedelta  # ISO 8601 ("PT15M", "P3D") or seconds
    next: StepId | None = None


class BranchCondition(Model):
    """`when` is a segment rule (`models.domain.segment`), which may also read the run's variables under `run.`."""

    name: Name = ""
    when: dict[str, Any]
    next: StepId | None = None


class BranchStep(Model):
    kind: Literal["branch"] = "branch"
    name: Name = ""
    conditions: tuple[BranchCondition, ...]  # the first that holds wins
    otherwise: StepId | None = None


class ExitStep(Model):
    kind: Literal["exit"] = "exit"
    name: Name = ""
    reason: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")] = "exit_step"  # a code; shown on the timeline


Step = Annotated[SendStep | WaitStep | BranchStep | ExitStep, Field(discriminator="kind")]


class Definition(Model):
    language: Literal[1] = 1
    start: StepId
    steps: dict[StepId, Step]

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


def targets(step: SendStep | WaitStep | BranchStep | ExitStep) -> tuple[str, ...]:
    """Where the step leads, in the order it names them; a target stands as often as it is named."""
    match step:
        case SendStep() | WaitStep():
            onward: tuple[str | None, ...] = (step.next,)
        case BranchStep():
            onward = (*(condition.next for condition in step.conditions), step.otherwise)
        case ExitStep():
            onward = ()
    return tuple(target for target in onward if target is not None)
