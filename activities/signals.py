"""Telling many workflows the same thing."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from temporalio.api.enums.v1 import ResourceExhaustedCause
from temporalio.api.errordetails.v1 import ResourceExhaustedFailure
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts.control import Control

log = logging.getLogger(__name__)

SIGNALS_AT_ONCE = 16
# What Temporal answers whichever workflow is meant: it is away, or does not let us in.
_WHICHEVER: Final = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.UNAUTHENTICATED,
        RPCStatusCode.PERMISSION_DENIED,
        RPCStatusCode.UNIMPLEMENTED,
    }
)


async def signal_all(temporal: Client, control: Control, workflow_ids: Sequence[str]) -> list[str]:
    """Each of the workflows has the signal `control`, but for those that are answered: Temporal takes nothing for them now, and they are to
    be told later (see `outbox.tell_later`). One that does not run (any more) needs no telling.

    Raises:
        RPCError: Temporal is away; saying it again is harmless.
    """
    limit = asyncio.Semaphore(SIGNALS_AT_ONCE)

    async def is_refused(workflow_id: str) -> bool:
        async with limit:
            try:
                with ignoring_absence():
                    await temporal.get_workflow_handle(workflow_id).signal("control", control)
            except RPCError as error:
                if not refuses_one(error, workflow_id):
                    raise
                return True
        return False

    refused = await asyncio.gather(*(is_refused(workflow_id) for workflow_id in workflow_ids))
    return [workflow_id for workflow_id, one in zip(workflow_ids, refused, strict=True) if one]


@contextmanager
def ignoring_absence() -> Iterator[None]:
    """What is not there (any more) needs no telling."""
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


def refuses_one(error: RPCError, name: str) -> bool:
    """Whether Temporal takes nothing for the workflow of this id, though it may well for others: one that is suspended cannot continue as
    new, and once it has as many signals as a workflow may have, every further one is refused. Says so in the log."""
    if error.status in _WHICHEVER or (error.status is RPCStatusCode.RESOURCE_EXHAUSTED and not _is_busy_with_it(error)):
        return False
    log.error("Temporal takes nothing for the workflow %s: %s; it is tried again", name, error.status.name)
    return True


def _is_busy_with_it(error: RPCError) -> bool:
    failure = ResourceExhaustedFailure()
    said = [failure.cause for detail in error.grpc_status.details if detail.Unpack(failure)]
    return ResourceExhaustedCause.RESOURCE_EXHAUSTED_CAUSE_BUSY_WORKFLOW in said
