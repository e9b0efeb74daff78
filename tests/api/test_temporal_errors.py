import pytest
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from api.temporal_errors import is_away


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (RPCError("x", RPCStatusCode.UNAVAILABLE, b""), True),
        (RPCError("x", RPCStatusCode.DEADLINE_EXCEEDED, b""), True),
        (RPCError("x", RPCStatusCode.NOT_FOUND, b""), False),
        (WorkflowUpdateRPCTimeoutOrCancelledError(), True),
        (RuntimeError("Failed client connect: Server connection error"), True),
        (RuntimeError("the sandbox has disconnected"), False),
        (ValueError("Failed client connect"), False),
    ],
)
def test_what_means_that_temporal_is_away(error: Exception, away: bool) -> None:
    assert is_away(error) is away
