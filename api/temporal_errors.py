"""Which errors of Temporal's client mean that it is away."""

from typing import Final

from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

_AWAY: Final = frozenset(
    {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.CANCELLED}
)


def is_away(error: BaseException) -> bool:
    """Whether Temporal did not answer. What was asked may have happened all the same."""
    match error:
        case RPCError():
            return error.status in _AWAY
        case WorkflowUpdateRPCTimeoutOrCancelledError():
            return True
        case RuntimeError():
            return str(error).startswith("Failed client connect")  # what a client that has never been connected raises
    return False
