"""What Temporal knows about workflows, as the reconciler asks it: lists by visibility, and single ones only on suspicion.

The raw service is asked, not the SDK's handles: these fail on a page with a workflow in a state that the SDK does not know, and
nothing here reads a payload.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState, TaskQueueType, WorkflowExecutionStatus, WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import PendingActivityInfo, WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import (
    DescribeScheduleRequest,
    DescribeTaskQueueRequest,
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
    ListSchedulesRequest,
    ListWorkflowExecutionsRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts.journey import JOURNEY_WORKFLOW
from activities.contracts.search_attributes import JOURNEY_ID, ORGANIZATION_ID
from models.tables.base import utc_now

PAGE = 1000
EXAMINED_AT_ONCE = 8
RUNNING = "running"
MISSING = "missing"
GOES_ON = (RUNNING, "continued_as_new", "paused")
_PROBLEMS = "TemporalReportedProblems IN ('category=WorkflowTaskFailed', 'category=WorkflowTaskTimedOut') AND ExecutionStatus = 'Running'"


@dataclass(frozen=True, slots=True)
class Listed:
    """A workflow as visibility lists it, which lags a little behind."""

    workflow_id: str
    temporal_run_id: str
    workflow_type: str
    status: str
    organization_id: UUID | None
    journey_id: UUID | None
    started_at: datetime | None
    closed_at: datetime | None


@dataclass(frozen=True)
class PendingActivity:
    name: str
    attempt: int
    failure: str | None  # the type of the last one, never its message
    started: bool
    task_queue: str


@dataclass(frozen=True)
class Examined:
    """A workflow as it is now. `task_attempt` 0: no workflow task is pending."""

    status: str
    workflow_type: str = ""
    closed_at: datetime | None = None
    task_queue: str = ""
    task_attempt: int = 0
    task_since: datetime | None = None
    activities: Sequence[PendingActivity] = field(default_factory=tuple)

    @property
    def idle(self) -> bool:
        return self.task_attempt == 0 and not self.activities


class Observer:
    """Asks one Temporal namespace. Remembers which task queues were polled `polled_within`, so make one for each round."""

    def __init__(self, client: Client, polled_within: timedelta = timedelta(seconds=65)) -> None:
        self.client = client
        self.polled_within = polled_within
        self._polled: dict[tuple[str, int], bool] = {}

    async def running(self) -> AsyncIterator[list[Listed]]:
        """All workflows that run, page by page: one call for each PAGE of them. There may be a million: keep little of each."""
        async for page in self._pages("ExecutionStatus = 'Running'"):
            yield page

    async def failing(self) -> list[Listed]:
        """Those whose tasks fail again and again. Empty where the server does not report that."""
        try:
            return [each async for page in self._pages(_PROBLEMS) for each in page]
        except RPCError as error:
            if error.status is RPCStatusCode.INVALID_ARGUMENT:  # servers before 1.30 lack the attribute: those that are late are described
                return []
            raise

    async def closed(self, since: datetime | None) -> AsyncIterator[list[Listed]]:
        """Journey workflows that closed at `since` or later, in any way, page by page: each link of a chain is one."""
        after = f" AND CloseTime >= '{since.astimezone(UTC).isoformat()}'" if since else ""
        async for page in self._pages(f"WorkflowType = '{JOURNEY_WORKFLOW}' AND ExecutionStatus != 'Running'{after}"):
            yield page

    async def failed(self, workflow_types: Sequence[str], since: datetime) -> AsyncIterator[list[Listed]]:
        """Workflows of these types that closed at `since` or later before they were over, page by page."""
        types = ", ".join(f"'{each}'" for each in workflow_types)
        how = "ExecutionStatus IN ('Failed', 'TimedOut', 'Terminated')"
        async for page in self._pages(f"WorkflowType IN ({types}) AND {how} AND CloseTime >= '{since.astimezone(UTC).isoformat()}'"):
            yield page

    async def why_failed(self, one: Listed) -> tuple[str | None, str | None]:
        """The activity in which the workflow failed, and the failure's type; nothing of one that was ended in another way, or whose
        history is gone."""
        execution = WorkflowExecution(workflow_id=one.workflow_id, run_id=one.temporal_run_id)
        request = GetWorkflowExecutionHistoryReverseRequest(namespace=self.client.namespace, execution=execution, maximum_page_size=1)
        try:
            answer = await self.client.workflow_service.get_workflow_execution_history_reverse(request, retry=True)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None, None
            raise
        for event in answer.history.events:
            if event.HasField("workflow_execution_failed_event_attributes"):
                failure = event.workflow_execution_failed_event_attributes.failure
                in_activity = failure.HasField("activity_failure_info")
                name = failure.activity_failure_info.activity_type.name if in_activity else None
                return name, _failure_type(failure.cause if in_activity else failure)
        return None, None

    async def closed_of(self, workflow_id: str) -> list[Listed]:
        """What has closed under this workflow id."""
        query = f"WorkflowId = '{workflow_id}' AND ExecutionStatus != 'Running'"
        return [each async for page in self._pages(query) for each in page]

    async def schedules(self) -> dict[str, bool]:
        """Whether each schedule is paused, by its id: one call for each PAGE of them. As visibility has it, which lags a little behind."""
        found: dict[str, bool] = {}
        token = b""
        while True:
            request = ListSchedulesRequest(namespace=self.client.namespace, maximum_page_size=PAGE, next_page_token=token)
            answer = await self.client.workflow_service.list_schedules(request, retry=True)
            found |= {each.schedule_id: each.info.paused for each in answer.schedules}
            token = answer.next_page_token
            if not token:
                return found

    async def schedule_is_paused(self, schedule_id: str) -> bool | None:
        """As it is now; None: there is no such schedule."""
        request = DescribeScheduleRequest(namespace=self.client.namespace, schedule_id=schedule_id)
        try:
            return (await self.client.workflow_service.describe_schedule(request, retry=True)).schedule.state.paused
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise

    async def _pages(self, query: str) -> AsyncIterator[list[Listed]]:
        token = b""
        while True:
            request = ListWorkflowExecutionsRequest(namespace=self.client.namespace, page_size=PAGE, next_page_token=token, query=query)
            answer = await self.client.workflow_service.list_workflow_executions(request, retry=True)
            yield [_listed(info) for info in answer.executions]
            token = answer.next_page_token
            if not token:
                return

    async def examine(self, workflow_id: str) -> Examined:
        """The newest workflow of this id as it is now; `missing` when Temporal knows none."""
        request = DescribeWorkflowExecutionRequest(namespace=self.client.namespace, execution=WorkflowExecution(workflow_id=workflow_id))
        try:
            return _examined(await self.client.workflow_service.describe_workflow_execution(request, retry=True))
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return Examined(MISSING)
            raise

    async def examine_all(self, workflow_ids: Collection[str]) -> dict[str, Examined]:
        """Each as by `examine`, EXAMINED_AT_ONCE at a time."""
        limit = asyncio.Semaphore(EXAMINED_AT_ONCE)

        async def examine(workflow_id: str) -> Examined:
            async with limit:
                return await self.examine(workflow_id)

        ordered = sorted(workflow_ids)
        return dict(zip(ordered, await asyncio.gather(*(examine(each) for each in ordered)), strict=True))

    async def why_tasks_fail(self, workflow_id: str) -> tuple[str | None, str | None]:
        """nondeterminism or exception, and the failure's type, by the newest events of its history."""
        request = GetWorkflowExecutionHistoryReverseRequest(
            namespace=self.client.namespace, execution=WorkflowExecution(workflow_id=workflow_id), maximum_page_size=5
        )
        answer = await self.client.workflow_service.get_workflow_execution_history_reverse(request, retry=True)
        for event in answer.history.events:
            if event.HasField("workflow_task_failed_event_attributes"):
                failed = event.workflow_task_failed_event_attributes
                name = WorkflowTaskFailedCause.Name(failed.cause)
                why = "nondeterminism" if name.endswith("NON_DETERMINISTIC_ERROR") else "exception" if "UNHANDLED_FAILURE" in name else None
                return why, _failure_type(failed.failure)
        return None, None

    async def is_polled(self, task_queue: str, workflows: bool) -> bool:
        """Whether a worker has asked the queue lately: for workflow tasks, or else for activities."""
        kind = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW if workflows else TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
        if (task_queue, kind) not in self._polled:
            request = DescribeTaskQueueRequest(namespace=self.client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=kind)
            answer = await self.client.workflow_service.describe_task_queue(request, retry=True)
            since = utc_now() - self.polled_within
            self._polled[task_queue, kind] = any(poller.last_access_time.ToDatetime(UTC) > since for poller in answer.pollers)
        return self._polled[task_queue, kind]


def organization_of(workflow_id: str) -> UUID | None:
    """Workflow ids begin with it."""
    try:
        return UUID(workflow_id.partition("/")[0])
    except ValueError:
        return None


def _listed(info: WorkflowExecutionInfo) -> Listed:
    return Listed(
        workflow_id=info.execution.workflow_id,
        temporal_run_id=info.execution.run_id,
        workflow_type=info.type.name,
        status=_status(info.status),
        organization_id=_id(info, ORGANIZATION_ID.name) or organization_of(info.execution.workflow_id),
        journey_id=_id(info, JOURNEY_ID.name),
        started_at=_time(info.start_time),
        closed_at=_time(info.close_time),
    )


def _id(info: WorkflowExecutionInfo, name: str) -> UUID | None:
    payload = info.search_attributes.indexed_fields.get(name)
    return UUID(json.loads(payload.data)) if payload is not None and payload.data not in (b"", b"null", b"[]") else None


def _status(status: "WorkflowExecutionStatus.ValueType") -> str:
    return WorkflowExecutionStatus.Name(status).removeprefix("WORKFLOW_EXECUTION_STATUS_").lower()


def _time(stamp: Timestamp) -> datetime | None:
    return stamp.ToDatetime(UTC) if stamp.seconds else None


def _examined(found: DescribeWorkflowExecutionResponse) -> Examined:
    info = found.workflow_execution_info
    task = found.pending_workflow_task if found.HasField("pending_workflow_task") else None
    return Examined(
        status=_status(info.status),
        workflow_type=info.type.name,
        closed_at=_time(info.close_time),
        task_queue=found.execution_config.task_queue.name,
        task_attempt=0 if task is None else max(1, task.attempt),
        task_since=None if task is None else _time(task.original_scheduled_time) or _time(task.scheduled_time),
        activities=tuple(_activity(each, found.execution_config.task_queue.name) for each in found.pending_activities),
    )


def _activity(pending: PendingActivityInfo, default_queue: str) -> PendingActivity:
    return PendingActivity(
        name=pending.activity_type.name,
        attempt=pending.attempt,
        failure=_failure_type(pending.last_failure) if pending.HasField("last_failure") else None,
        started=pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
        task_queue=pending.activity_options.task_queue.name or default_queue,
    )


def _failure_type(failure: Failure) -> str | None:
    """Its message may quote values, and is encrypted; its type, and its cause's, are ours or a library's words. What is too large for
    Temporal to keep lies beneath a failure of the server's that says so."""
    types: list[str] = []
    while len(types) < 2:
        kind = failure.WhichOneof("failure_info")
        if kind == "application_failure_info" and failure.application_failure_info.type:
            types.append(failure.application_failure_info.type)
        elif kind is not None and kind != "server_failure_info":
            types.append(kind.removesuffix("_failure_info"))
        if not failure.HasField("cause"):
            break
        failure = failure.cause
    return ", ".join(types) or None
