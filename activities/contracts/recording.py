"""What happened to runs, for the record."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from temporalio import activity

from activities.contracts.payload import Payload, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """Something that happened to a run. (run_id, sequence) identifies it: recording twice changes nothing."""

    run_id: UUID
    sequence: int
    kind: str  # entered, sent, not_sent, held, waiting, woke, chose, parked, paused, resumed, retried, skipped, or the last phase
    phase: str  # the run's phase after it
    occurred_at: datetime
    beneath: str | None = None  # while it is paused: the phase underneath
    step_id: str | None = None
    at_step: str | None = None  # while it is paused: where it stands after that, if that is another step than the one that this tells of
    visit: int | None = None
    at_visit: int | None = None  # of the step that its row shows: at which visit it stands after that, if that is not `visit`
    wake_at: datetime | None = None
    reason: str | None = None
    actor_kind: str = "system"
    actor_id: UUID | None = None
    details: dict[str, Any] = field(default_factory=dict)


class AuditBatch(Payload):
    scope: Scope
    transitions: Sequence[Transition]


TRANSITIONS_AT_ONCE = 1000  # about 310 bytes each; Temporal takes payloads of up to 2 MiB


@activity.defn(name="record_audit")
async def record_audit(batch: AuditBatch) -> None:
    """Timeline, run projection and audit chain hold these transitions."""
    raise NotImplementedError
