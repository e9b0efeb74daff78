"""Temporal's development server as a child process, and what any Temporal must know before runs start."""

import asyncio
import sysconfig
import time
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RetryConfig, RPCError

from activities.contracts.search_attributes import SEARCH_ATTRIBUTES

RETENTION = timedelta(days=7)  # of closed workflows; their histories are archived by us
KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD

# Measured: the server's own defaults cost 40-50 ms per hop and round timers up to 1 s.
DYNAMIC_CONFIGURATION = (
    "history.transferProcessorMaxPollRPS=1000",
    "history.timerProcessorMaxPollRPS=1000",
    "history.visibilityProcessorMaxPollRPS=1000",
    'history.timerProcessorMaxTimeShift="10ms"',
    "matching.enableFairness=true",
    "system.numConsecutiveWorkflowTaskProblemsToTriggerSearchAttribute=3",
)
PRAGMAS = ("journal_mode=wal", "synchronous=normal")


class TemporalUnfit(Exception):
    """Temporal answers but lacks something that runs need. The message says how to put it right."""


def server_command(port: int, ui_port: int, database: Path, namespace: str) -> list[str]:
    """The development server on 127.0.0.1 with its state in `database`."""
    options = ["--ip", "127.0.0.1", "--port", str(port), "--ui-port", str(ui_port), "--db-filename", str(database), "--log-level", "warn"]
    if namespace != "default":
        options += ["--namespace", namespace]
    for setting in DYNAMIC_CONFIGURATION:
        options += ["--dynamic-config-value", setting]
    for pragma in PRAGMAS:
        options += ["--sqlite-pragma", pragma]
    return [str(Path(sysconfig.get_path("scripts")) / "temporal"), "server", "start-dev", *options]


async def connect_bare(timeout: timedelta, address: str | None = None, namespace: str | None = None) -> Client:
    """A client without our payload converter, for the server's own affairs. Reads Temporal's standard environment; `address` and
    `namespace` go before it.

    Raises:
        RuntimeError: the server did not become healthy within `timeout`.
    """
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "127.0.0.1:7233")
    if address is not None:
        config["target_host"] = address
    if namespace is not None:
        config["namespace"] = namespace
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        try:
            return await Client.connect(**config, retry_config=RetryConfig(max_elapsed_time_millis=500, max_retries=2))
        except RuntimeError:  # also "Frontend is not healthy yet", for a moment after the port opens
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def prepare_namespace(client: Client, *, own: bool) -> None:
    """Retention is set and every search attribute is a known keyword. At every start: a flag of the server is ignored when its
    database exists already, and an unknown attribute wedges the runs that carry it.

    `own`: the server is the embedded one. Another's retention is its operator's choice.

    Raises:
        TemporalUnfit: an attribute is missing and cannot be added, or has another type.
    """
    if own:
        await _set_retention(client)
    if missing := await missing_search_attributes(client):
        await _add_search_attributes(client, missing)
    for _ in range(50):  # the server's cache of attributes follows within moments
        if not await missing_search_attributes(client):
            return
        await asyncio.sleep(0.2)
    raise TemporalUnfit(_how_to_add(client.namespace, await missing_search_attributes(client)))


async def missing_search_attributes(client: Client) -> list[str]:
    """Names of our attributes that the namespace does not know.

    Raises:
        TemporalUnfit: one is known under another type, which cannot be changed.
    """
    known = await client.operator_service.list_search_attributes(ListSearchAttributesRequest(namespace=client.namespace))
    custom = known.custom_attributes
    wrong = [key.name for key in SEARCH_ATTRIBUTES if key.name in custom and custom[key.name] != KEYWORD]
    if wrong:
        raise TemporalUnfit(
            f"Search attributes {', '.join(wrong)} exist in namespace {client.namespace} but are no keywords. Use another namespace."
        )
    return [key.name for key in SEARCH_ATTRIBUTES if key.name not in custom]


async def retention(client: Client) -> timedelta:
    answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    return answer.config.workflow_execution_retention_ttl.ToTimedelta()


async def _set_retention(client: Client) -> None:
    period = Duration()
    period.FromTimedelta(RETENTION)
    config = NamespaceConfig(workflow_execution_retention_ttl=period)
    for attempt in range(50):  # a namespace named by flag appears a moment after the port opens
        try:
            await client.workflow_service.update_namespace(UpdateNamespaceRequest(namespace=client.namespace, config=config))
            return
        except RPCError:
            if attempt == 49:
                raise
            await asyncio.sleep(0.2)


async def _add_search_attributes(client: Client, names: list[str]) -> None:
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=dict.fromkeys(names, KEYWORD))
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        raise TemporalUnfit(f"{_how_to_add(client.namespace, names)} ({error.message})") from error


def _how_to_add(namespace: str, names: list[str]) -> str:
    options = " ".join(f"--name {name} --type Keyword" for name in names)
    return (
        f"Namespace {namespace} lacks search attributes. Run: temporal operator search-attribute create --namespace {namespace} {options}"
    )
