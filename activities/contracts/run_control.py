"""An operator's word about single runs."""

from collections.abc import Mapping, Sequence
from typing import Literal
from uuid import UUID

from pydantic import Field

from activities.contracts.payload import Payload

CONTROL_RUNS = "control_runs"


class Place(Payload):
    """Where a run stands. `visit` None: any."""

    step_id: str
    visit: int | None = None


class RunControl(Payload):
    """An operator's word about some runs of one workflow; sent as the update `control_runs`."""

    command: Literal["pause", "resume", "cancel", "retry", "skip", "jump", "cancel_step", "restore_step", "approve", "reject"]
    run_ids: Sequence[UUID]
    actor_kind: str = "user"
    actor_id: UUID | None = None
    reason: str | None = None
    places: Mapping[str, Place] = Field(default_factory=dict)  # by run id: obeyed only by a run that (still) stands there
    to_step: str | None = None  # jump: where it arrives; cancel_step and restore_step: which
    operation_id: UUID | None = None  # said to many runs at once
    request_id: UUID | None = None  # the same word said again has the same, also to the workflow that has taken the runs over

    @property
    def word(self) -> UUID | None:
        """By what a word that is heard twice is known."""
        return self.request_id or self.operation_id


class RunControlled(Payload):
    """What `control_runs` answers for one run: its phase now, and whether the command changed anything; `why` not, as a code. `step_id`
    and `visit`: where it stands, which its row shows only once it rests."""

    run_id: UUID
    phase: str
    changed: bool
    why: str | None = None
    step_id: str | None = None
    visit: int | None = None
