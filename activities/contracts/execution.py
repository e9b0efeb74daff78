"""How activities are run: timeouts, retries, queues and fairness. Timeouts are per attempt unless said."""

from datetime import timedelta

from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityConfig

# A version or step that does not exist, or a malformed rule, does not come right by trying again: the runs park.
HOPELESS = ["NotFound", "Invalid", "UnknownProvider"]

# Database work of one batch. A lost worker is noticed by the missing heartbeat, not by the long timeout.
RECORDS = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=20), non_retryable_error_types=HOPELESS
    ),
)
# A batch may wait for its connection's rate limit, so it is long. The SDK passes heartbeats on at 80 % of their timeout, each of them a
# write of the server's: with hundreds of batches waiting, a timeout of 10 s was half of the server's work.
SENDS = ActivityConfig(
    start_to_close_timeout=timedelta(hours=2),
    heartbeat_timeout=timedelta(seconds=20),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=20), non_retryable_error_types=HOPELESS
    ),
)
# A round that fails is not worth repeating for long: the next one comes in a minute.
CHECKS = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=timedelta(seconds=20),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_attempts=2),
)
HEARTBEAT_EVERY = timedelta(seconds=3)


def fair_share(organization_id: str) -> Priority:
    """For every start: one organization's million does not delay another's ten. Activities inherit it."""
    return Priority(fairness_key=organization_id)


def send_queue(task_queue: str) -> str:
    """Sends have a queue of their own, so that sends waiting for a rate limit do not keep checks and records waiting."""
    return f"{task_queue}-send"
