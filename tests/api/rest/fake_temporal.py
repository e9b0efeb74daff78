"""Stands where Temporal's client stands, and remembers what it was told."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from temporalio.client import ScheduleAlreadyRunningError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts.payload import Payload
from activities.contracts.run_control import RunControl, RunControlled


@dataclass(frozen=True)
class Started:
    workflow: str
    argument: Any
    task_queue: str
    attributes: dict[str, str]


@dataclass(frozen=True)
class Told:
    workflow_id: str
    control: RunControl
    update_id: str


async def nothing() -> None:
    return None


@dataclass
class FakeTemporal:
    """`fault` is raised by every call; `terminated` are closed, as if by somebody from outside; `hears` keeps what was said although the
    answer is lost; `phase` and `changed` are what every run answers; `meanwhile` happens while a workflow starts, too early to be
    signalled to it."""

    started: dict[str, Started] = field(default_factory=dict)
    terminated: set[str] = field(default_factory=set)
    told: list[Told] = field(default_factory=list)
    fault: Exception | None = None
    hears: bool = False
    schedules: dict[str, Any] = field(default_factory=dict)
    phase: str = "paused"
    changed: bool = True
    why: str | None = None
    signalled: list[tuple[str, str, Any]] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] = nothing

    def away(self, *, hears: bool = False) -> None:
        self.fault, self.hears = RPCError("connection refused", RPCStatusCode.UNAVAILABLE, b""), hears

    def silent(self, *, hears: bool = False) -> None:
        self.fault, self.hears = WorkflowUpdateRPCTimeoutOrCancelledError(), hears

    def refusing(self, kind: str) -> None:
        self.fault = WorkflowUpdateFailedError(ApplicationError("refused", type=kind))

    def back(self) -> None:
        self.fault, self.hears = None, False

    async def start_workflow(self, workflow: str, argument: Payload | None = None, **options: Any) -> None:
        """With a signal: the signal's argument is kept, under its request's id; the same request is heard once."""
        if self.fault is not None and not self.hears:
            raise self.fault
        if argument is None:
            word = options["start_signal_args"][0]
            argument, options["id"] = word, f"{options['id']}/{word.request_id}"
        elif options["id"] in self.started and "start_signal" not in options and not self._may_restart(options):
            raise WorkflowAlreadyStartedError(options["id"], workflow)
        attributes = {pair.key.name: pair.value for pair in options["search_attributes"]}
        # As the wire would: what cannot be serialized fails here.
        copy = type(argument).model_validate_json(argument.model_dump_json())
        await self.meanwhile()
        self.started[options["id"]] = Started(workflow, copy, options["task_queue"], attributes)
        if self.fault is not None:
            raise self.fault

    def _may_restart(self, options: dict[str, Any]) -> bool:
        return options["id"] in self.terminated and options["id_reuse_policy"] is WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY

    async def create_schedule(self, name: str, schedule: Any, **options: Any) -> None:
        if self.fault is not None and not self.hears:
            raise self.fault
        if name in self.schedules:
            raise ScheduleAlreadyRunningError
        self.schedules[name] = schedule
        if self.fault is not None:
            raise self.fault

    def get_workflow_handle(self, workflow_id: str) -> "Handle":
        return Handle(self, workflow_id)


@dataclass
class Handle:
    temporal: FakeTemporal
    workflow_id: str

    async def signal(self, name: str, argument: Payload) -> None:
        if self.temporal.fault is not None:
            raise self.temporal.fault
        self.temporal.signalled.append((self.workflow_id, name, argument))

    async def execute_update(self, name: str, control: RunControl, *, id: str, **options: Any) -> list[RunControlled]:
        assert name == "control_runs"
        if self.temporal.fault is not None and not self.temporal.hears:
            raise self.temporal.fault
        if self.workflow_id not in self.temporal.started:
            raise RPCError("workflow not found", RPCStatusCode.NOT_FOUND, b"")
        self.temporal.told.append(Told(self.workflow_id, control, id))
        if self.temporal.fault is not None:
            raise self.temporal.fault
        return [
            RunControlled(run_id=run_id, phase=self.temporal.phase, changed=self.temporal.changed, why=self.temporal.why)
            for run_id in control.run_ids
        ]
