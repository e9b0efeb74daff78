"""Telling many workflows the same thing."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts.control import Control

SIGNALS_AT_ONCE = 16


async def signal_all(temporal: Client, control: Control, workflow_ids: Sequence[str]) -> None:
    """Each of the workflows has the signal `control`. One that does not run (any more) needs no telling.

    Raises:
        RPCError: Temporal did not take one of them; saying it again is harmless.
    """
    limit = asyncio.Semaphore(SIGNALS_AT_ONCE)

    async def signal(workflow_id: str) -> None:
        async with limit:
            with ignoring_absence():
                await temporal.get_workflow_handle(workflow_id).signal("control", control)

    await asyncio.gather(*(signal(workflow_id) for workflow_id in workflow_ids))


@contextmanager
def ignoring_absence() -> Iterator[None]:
    """What is not there (any more) needs no telling."""
    try:
        yield
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
