"""Telling many workflows by updates: one that does not answer keeps no other waiting."""

import asyncio
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts.payload import Payload

UPDATES_AT_ONCE = 16
PATIENCE = timedelta(seconds=10)
# Not there (any more), busy with too many updates, or silent: whoever carries the runs is asked in the next pass.
PASSED_OVER = (
    RPCStatusCode.NOT_FOUND,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.DEADLINE_EXCEEDED,
)


class Updates:
    """One page's: `UPDATES_AT_ONCE` at most are under way."""

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal
        self._limit = asyncio.Semaphore(UPDATES_AT_ONCE)

    async def ask(self, workflow_id: str, update: str, word: Payload, update_id: str, result_type: Any = None) -> Any:
        """The workflow's answer; None: it gives none now, and may have heard the word all the same. The same `update_id` is obeyed once.

        Raises:
            RPCError: Temporal itself is in trouble; the page is to be repeated.
        """
        async with self._limit:
            try:
                return await self._temporal.get_workflow_handle(workflow_id).execute_update(
                    update, word, id=update_id, result_type=result_type, rpc_timeout=PATIENCE
                )
            except (WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError):
                return None
            except RPCError as error:
                if error.status not in PASSED_OVER:
                    raise
                return None
