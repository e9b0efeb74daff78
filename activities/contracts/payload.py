"""What all payloads are, and whose runs they speak of."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class Payload(BaseModel):
    """Evolves by additions with defaults only: a payload that fails validation would wedge its workflow.

    What a batch holds one of per run is a slotted dataclass instead, to the same rule: pydantic reads and writes it alike, and of
    hundreds of workflows whose batches wait for an activity a model per run would weigh ten times as much.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


class Scope(Payload):
    """Whose runs these are. The same for every run of a workflow."""

    organization_id: UUID
    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None = None
    on_error: Literal["park", "pause", "skip"] = "park"  # what a step that fails for good does to its run, or to the campaign
    replay: bool = False  # they take the place of other runs: what those have done is not repeated
