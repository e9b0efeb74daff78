"""The way from nothing to ready: servers, schema, first organization, then worker, API and sandbox."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
from temporalio.client import Client
from temporalio.service import RPCError

from deploy.bootstrap import ensure_first_organization, migrate_database
from deploy.environment import Plan, child_environment, part_command, server_environment
from deploy.postgres import EmbeddedPostgres
from deploy.probes import Unhealthy, api_health, smtp_banner, worker_polls
from deploy.processes import Part, ProcessTree
from deploy.state import Secrets
from deploy.temporal_server import connect_bare, prepare_namespace, server_command
from models.settings import Settings

PATIENCE = timedelta(seconds=150)  # a cold start on a slow disk
# In this order parts are stopped, those of a group at the same time. The sandbox outlives the worker, which needs it to finish the
# messages in the air. On a loaded machine a part takes two to three seconds to end; the worker has three for its messages.
STOP_ORDER = (("api",), ("worker",), ("sandbox", "temporal"), ("postgres",))


async def start_everything(plan: Plan, tree: ProcessTree) -> dict[str, Any]:
    """Every part is up and answers. The result is what `leadstats up --json` prints, but for the process ids."""
    settings = Settings.from_environment(child_environment(plan))
    async with asyncio.TaskGroup() as group:
        temporal = group.create_task(_start_temporal(plan, tree))
        organization = group.create_task(_start_database(plan, tree, settings))
    environment = child_environment(plan)
    await tree.start(Part("worker", part_command("worker"), environment, stop_within=4.0))
    await tree.start(Part("api", part_command("api"), environment, stop_within=2.5))
    await tree.start(Part("sandbox", part_command("sandbox"), environment, stop_within=1.5))
    async with asyncio.TaskGroup() as group:
        group.create_task(_until_healthy(lambda: api_health(plan.api_address)))
        group.create_task(_until_healthy(lambda: smtp_banner("127.0.0.1", plan.smtp_port)))
        group.create_task(_until_healthy(lambda: worker_polls(temporal.result(), settings.task_queue)))
    return describe(plan, organization.result())


def describe(plan: Plan, secrets: Secrets) -> dict[str, Any]:
    """The installation's addresses and first login, for scripts."""
    known = secrets.organization_id is not None
    return {
        "api": plan.api_address,
        "console": plan.api_address,
        "temporal": plan.temporal_address,
        "temporal_namespace": plan.temporal_namespace,
        "temporal_ui": plan.temporal_ui_address,
        "sandbox_smtp": f"127.0.0.1:{plan.smtp_port}",
        "database_url": plan.app_url,
        "owner_database_url": plan.owner_url,
        "admin": {"email": secrets.admin_email, "password": secrets.admin_password} if known else None,
        "api_key": secrets.api_key,
        "organization_id": secrets.organization_id,
        "state": str(plan.state.path),
    }


async def _start_temporal(plan: Plan, tree: ProcessTree) -> Client:
    own = plan.temporal_port is not None
    if plan.temporal_port is not None and plan.temporal_ui_port is not None:
        database = plan.state.path / "temporal.db"
        command = server_command(plan.temporal_port, plan.temporal_ui_port, database, plan.temporal_namespace)
        await tree.start(Part("temporal", command, server_environment(), stop_within=2.0))
    client = await connect_bare(PATIENCE)
    await prepare_namespace(client, own=own)
    return client


async def _start_database(plan: Plan, tree: ProcessTree, settings: Settings) -> Secrets:
    if plan.postgres_port is not None:
        await _start_postgres(plan, plan.postgres_port, tree)
    await migrate_database(plan)
    return await ensure_first_organization(plan, settings)


async def _start_postgres(plan: Plan, port: int, tree: ProcessTree) -> None:
    server = await asyncio.to_thread(EmbeddedPostgres, plan.state.path / "postgres", port, plan.secrets.database_owner_password)
    await asyncio.to_thread(server.initialize)
    part = Part(
        "postgres",
        server.command(),
        server_environment(),
        identity=server.home.identity,
        stop_signal=server.stop_signal,
        death_signal=server.death_signal,
        stop_within=1.5,
        before_start=server.initialize,
    )
    await tree.start(part)
    await _until(lambda: asyncio.to_thread(server.ensure_database), psycopg.OperationalError)


async def _until_healthy(probe: Callable[[], Awaitable[object]]) -> None:
    await _until(probe, Unhealthy, RPCError)


async def _until(attempt: Callable[[], Awaitable[object]], *expected: type[Exception]) -> None:
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while True:
        try:
            await attempt()
            return
        except expected:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)
