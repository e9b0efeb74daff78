"""Words to Temporal, each bounded in time. A word that was not answered may still have been heard: it is repeated, not undone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import UUID, uuid5

from temporalio.client import (
    Schedule,
    ScheduleAlreadyRunningError,
    ScheduleBackfill,
    WorkflowUpdateFailedError,
)
from temporalio.common import TypedSearchAttributes
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities import starting
from activities.contracts.control import Control
from activities.contracts.payload import Payload
from activities.contracts.run_control import CONTROL_RUNS, RunControl, RunControlled
from api.dependencies import Services
from api.temporal_errors import is_away
from models.domain.errors import Unavailable

PATIENCE = timedelta(seconds=5)
_REQUESTS = UUID("6f1c5b0e-8a43-4a6e-9d0c-6f2b7a1c9e55")  # the name space of ids made from Idempotency-Keys


class NoSuchWorkflow(Exception):
    """The workflow does not exist, has closed, or does not carry this run (any more)."""


class RunLeft(NoSuchWorkflow):
    """The workflow is there, and does not carry this run (any more): a publish plan hands it over, or has done so."""


def request_id(key: str, *parts: object) -> UUID:
    """The same id for the same Idempotency-Key (or whatever else identifies the request) in the same place."""
    return uuid5(_REQUESTS, "/".join([*map(str, parts), key]))


async def start(
    services: Services, workflow: str, argument: Payload, name: str, found_by: TypedSearchAttributes, *, restarts: bool = False
) -> bool:
    """The workflow is running, or has run: a second start of the same id changes nothing. Whether it was started just now. `restarts`: as
    of `starting.start_once`.

    Raises:
        Unavailable: Temporal did not answer; the start may still have happened, and may be repeated.
    """
    async with _answering():
        queue = services.settings.task_queue
        return await starting.start_once(services.temporal, queue, workflow, argument, name, found_by, PATIENCE, restarts=restarts)


async def create_schedule(services: Services, name: str, schedule: Schedule, backfill: Sequence[ScheduleBackfill]) -> None:
    """The schedule exists, and has acted for the times of `backfill`: creating it a second time changes nothing.

    Raises:
        Unavailable: Temporal did not answer; the schedule may exist all the same, and the creation may be repeated.
    """
    async with _answering():
        with suppress(ScheduleAlreadyRunningError):
            await services.temporal.create_schedule(name, schedule, backfill=backfill, rpc_timeout=PATIENCE)


async def control_all(services: Services, control: Control, found_by: TypedSearchAttributes) -> None:
    """The control workflow of the campaign or journey has heard the word, after all words said before.

    Raises:
        Unavailable: Temporal did not answer; the word may have been heard, and may be repeated.
    """
    async with _answering():
        await starting.say_control(services.temporal, services.settings.task_queue, control, found_by, PATIENCE)


async def signal_with_start(
    services: Services, workflow: str, said: Payload, name: str, signal: str, found_by: TypedSearchAttributes
) -> None:
    """The workflow of this id has heard the signal; it is started (with the same argument) where it did not run.

    Raises:
        Unavailable: Temporal did not answer; the signal may have been heard, and may be repeated.
    """
    async with _answering():
        await starting.signal_with_start(services.temporal, services.settings.task_queue, workflow, said, name, signal, found_by, PATIENCE)


async def control_runs(services: Services, name: str, control: RunControl, update_id: str) -> list[RunControlled]:
    """What the workflow answers to the command. The same `update_id` gets the same answer and no second effect.

    Raises:
        NoSuchWorkflow: nobody is there to obey. RunLeft: because the run has left.
        Unavailable: no answer in time; the command may still be obeyed, and is repeated with the same `update_id`.
    """
    handle = services.temporal.get_workflow_handle(name)
    async with _answering():
        try:
            answer: list[RunControlled] = await handle.execute_update(
                CONTROL_RUNS, control, id=update_id, result_type=list[RunControlled], rpc_timeout=PATIENCE
            )
        except WorkflowUpdateFailedError as error:
            raise _refusal(error) from error
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise NoSuchWorkflow(name) from error
            raise
    return answer


def _refusal(error: WorkflowUpdateFailedError) -> Exception:
    """The run is not carried any more, or the workflow closed before it could answer."""
    kind = error.cause.type if isinstance(error.cause, ApplicationError) else None
    return RunLeft(kind) if kind == "NotFound" else NoSuchWorkflow(kind or type(error.cause).__name__)


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Whatever means that Temporal is away becomes `Unavailable`; `rpc_timeout` alone does not bound a server that is down."""
    try:
        async with asyncio.timeout((PATIENCE + timedelta(seconds=1)).total_seconds()):
            yield
    except Exception as error:
        if isinstance(error, TimeoutError) or is_away(error):
            raise _away() from error
        raise


def _away() -> Unavailable:
    return Unavailable(
        "The workflow service did not answer. What was asked is recorded where it could be and may still happen: "
        "repeat the request with the same Idempotency-Key."
    )
