"""The workflow that carries runs, and what it is told of them."""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from activities.contracts.payload import Payload, Scope
from models.domain.journey.definition import Definition
from models.domain.journey.run import RunState

JOURNEY_WORKFLOW = "JourneyWorkflow"


class JourneyInput(Payload):
    """What a JourneyWorkflow starts with, and what it hands itself over continue-as-new."""

    scope: Scope
    definition: Definition
    runs: Sequence[RunState]
    held_by: Sequence[str] = ()  # "campaign", "journey": whole-workflow pauses in force
    cancelled: bool = False  # the campaign, or every run of the journey, was cancelled before this workflow started


class RunMessage(Payload):
    """Something outside a run that concerns it. Heard twice, or too late, it changes nothing."""

    run_id: UUID
    kind: Literal["matched", "exit", "reconsider", "variables"]
    step_id: str | None = None  # matched: of the wait
    visit: int | None = None
    index: int | None = None  # matched: of the way
    reason: str | None = None  # exit, variables
    names: Sequence[str] = ()  # variables: of those that have changed
    actor_kind: str = "system"
    actor_id: UUID | None = None
    operation_id: UUID | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class RunMessages(Payload):
    """What the signal `tell` carries."""

    messages: Sequence[RunMessage]
