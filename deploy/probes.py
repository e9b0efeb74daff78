"""Questions to the parts of an installation, each answered by nothing or by `Unhealthy` with what to do."""

import asyncio
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

POLLED_WITHIN = timedelta(seconds=75)  # a poll is held open for up to 60 s


class Unhealthy(Exception):
    """What is wrong, and what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


async def api_health(address: str) -> dict[str, Any]:
    """The body of `GET /v1/health`."""
    try:
        body = await asyncio.to_thread(_get, f"{address}/v1/health")
    except (OSError, urllib.error.URLError) as error:
        raise Unhealthy(f"The API does not answer at {address} ({error}).", "See logs/api.log in the state directory.") from error
    return dict(json.loads(body)) if body else {}


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=3) as answer:
        content: bytes = answer.read()
        return content


async def smtp_banner(host: str, port: int) -> str:
    """The first line of the sandbox's mail server."""
    try:
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection(host, port)
            line = (await reader.readline()).decode(errors="replace").strip()
            writer.close()
    except (OSError, TimeoutError) as error:
        raise Unhealthy(
            f"The sandbox's mail server does not answer at {host}:{port}.", "See logs/sandbox.log in the state directory."
        ) from error
    if not line.startswith("220"):
        raise Unhealthy(
            f"{host}:{port} answers {line!r}, which is no mail server's greeting.", "Another program has the port; restart leadstats up."
        )
    return line


async def worker_polls(client: Client, task_queue: str) -> list[str]:
    """Identities of the workers that asked for workflow tasks within the last poll's time."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=TaskQueue(name=task_queue), task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
    )
    answer = await client.workflow_service.describe_task_queue(request)
    since = datetime.now(UTC) - POLLED_WITHIN
    fresh = [poller.identity for poller in answer.pollers if poller.last_access_time.ToDatetime(UTC) > since]
    if not fresh:
        raise Unhealthy(f"No worker polls the task queue {task_queue}.", "Start one: leadstats worker. See logs/worker.log.")
    return fresh
