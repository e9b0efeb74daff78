"""Operations on many runs at once: what can be said, to which runs, and with what. Pure.

A new command is one entry in `OPERATIONS`, and, where telling its runs' workflows by `control_runs` is not what it does, an activity of
its own in `activities.contracts.operations.OPERATION_PAGES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from models.domain.journey.failures import FailureClass
from models.domain.journey.run import FINISHED, Phase
from models.domain.journey.steps.base import StepId, VariableName

MOST_IDS = 1_000
MOST_RUNS = 1_000_000
UNFINISHED = frozenset(Phase) - FINISHED
MOST_VARIABLES = 100  # of one run
VARIABLES_BYTES = 32 * 1024  # together, as much as an event brings with it
WRONG_PHASE = "wrong_phase"  # why a command makes no sense for a run
UNKNOWN_STEP = "unknown_step"
UNKNOWN_RESEND = "unknown_resend"
PAUSED_AGAIN = "paused_again"  # why a run is not resumed: somebody paused it after it was taken

Ids = Annotated[list[UUID], Field(max_length=MOST_IDS)]
Codes = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=50)]


class RunSelection(BaseModel):
    """Which runs. What is left out does not matter; all that is given must hold. Times are aware; `_from` counts, `_before` does not.

    A new field is one line here and one in `models.store.run_selection.CONDITIONS`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    journey_id: UUID | None = None
    version_id: UUID | None = None
    campaign_id: UUID | None = None
    step_id: str | None = Field(None, max_length=63)
    statuses: Annotated[list[Phase], Field(max_length=len(Phase))] | None = None
    reasons: Codes | None = None  # a code, or what stands before its first colon
    failure_classes: Annotated[list[FailureClass], Field(max_length=len(FailureClass))] | None = None
    failure_fingerprints: Codes | None = None  # as GET /v1/failures tells them
    run_ids: Ids | None = None
    contact_ids: Ids | None = None
    segment_id: UUID | None = None  # of contacts, as it selects at the moment of asking
    entered_from: AwareDatetime | None = None
    entered_before: AwareDatetime | None = None
    updated_from: AwareDatetime | None = None
    updated_before: AwareDatetime | None = None
    finished_from: AwareDatetime | None = None
    finished_before: AwareDatetime | None = None

    def given(self) -> dict[str, Any]:
        """The fields that matter, by name."""
        return {name: value for name, value in self if value is not None}


class NoArguments(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JumpArguments(NoArguments):
    to_step: StepId


class VariableArguments(NoArguments):
    variables: dict[VariableName, Any] = Field(min_length=1, max_length=MOST_VARIABLES)  # null takes one away


class ReplayArguments(NoArguments):
    """`from_step`: left out, each run's, where it stopped. `resend`: where it was done, or may have been."""

    from_step: StepId | None = None
    version: Literal["original", "current"] = "original"
    resend: Annotated[list[StepId], Field(max_length=50)] = []


@dataclass(frozen=True)
class Operation:
    """`phases`: of the runs for which it makes sense. `bound_to_step`: it means the step at which a run stood when it was selected, and
    never a later one. `beneath_pause`: `phases` are those underneath a pause. `permission`: what a person needs beside `runs.bulk`.
    `most_runs`: at once."""

    phases: frozenset[Phase]
    arguments: type[NoArguments] = NoArguments
    bound_to_step: bool = False
    beneath_pause: bool = False
    permission: str = "runs.control"
    most_runs: int = MOST_RUNS


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "pause": Operation(UNFINISHED),
        "resume": Operation(frozenset({Phase.PAUSED})),
        "retry": Operation(frozenset({Phase.NEEDS_ATTENTION}), beneath_pause=True),
        "skip": Operation(UNFINISHED, bound_to_step=True),
        "jump": Operation(UNFINISHED, JumpArguments, bound_to_step=True),
        "cancel": Operation(UNFINISHED),
        "set_variables": Operation(UNFINISHED, VariableArguments),
        "replay": Operation(FINISHED | {Phase.NEEDS_ATTENTION}, ReplayArguments, beneath_pause=True, most_runs=10_000),
    }
)
