"""The whole product in one process, over real parts: PostgreSQL, Temporal with virtual time, SMTP over sockets, the HTTP application.

Each test founds its own organization and speaks to the public API. The worker's cache is off, unless a test is repeated with so many
contacts that it would do little else than replay: every workflow task replays.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from httpx2 import ASGITransport, AsyncClient
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment

from api.commands import temporal
from api.commands.organizations import create_organization
from api.dependencies import Services
from api.sandbox.server import serve
from deploy.postgres import EmbeddedPostgres, free_port
from models.settings import Settings
from models.store.session import Database
from models.tables.base import new_id
from tests.application import application
from tests.conftest import another_database, settings_of
from tests.journeys.organization import Organization
from tests.temporal import temporal_server
from worker import Parts, workers

MANY = 200


@dataclass(frozen=True)
class Stack:
    settings: Settings
    services: Services
    temporal: WorkflowEnvironment

    async def found(self, name: str = "acme") -> Organization:
        """A new organization with its sandbox connection, its owner speaking."""
        slug = f"{name}-{new_id().hex[-12:]}"
        created = await create_organization(self.services, name, slug, f"owner@{slug}.example.com", "correct horse battery staple")
        client = AsyncClient(
            transport=ASGITransport(app=application(self.services)),
            base_url="http://test",
            headers={"Authorization": f"Bearer {created.api_key}"},
            timeout=60,
        )
        return Organization(created.organization_id, client, self.temporal.with_time_skipping_disabled)

    async def at_rest(self, handle: WorkflowHandle[Any, Any]) -> None:
        """The workflow waits for nothing but time: only then may its worker leave, and its clock be moved while there is none."""
        async with asyncio.timeout(120):
            while (found := (await handle.describe()).raw_description).pending_activities or found.HasField("pending_workflow_task"):
                await asyncio.sleep(0.1)

    async def forward(self, handle: WorkflowHandle[Any, Any], by: timedelta | None = None) -> None:
        """The workflow's clock has gone on by so much, or to its end. One that may be over by now stays so."""
        try:
            await self.temporal.fast_forward(handle, by)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    @asynccontextmanager
    async def working(self, contacts: int = 0) -> AsyncIterator[None]:
        """A worker process's worth of workers, for as long as the block lasts, with an installation's cache for many contacts."""
        cached = Settings.model_fields["max_cached_workflows"].default if contacts > MANY else 0
        settings = self.settings.model_copy(update={"max_cached_workflows": cached})
        async with AsyncExitStack() as running:
            parts = Parts.build(self.services.temporal, self.services.database, settings)
            running.push_async_callback(parts.close)
            for each in workers(parts, settings):
                await running.enter_async_context(each)
            yield


@asynccontextmanager
async def standing(own: Settings) -> AsyncIterator[Stack]:
    """A stack over the settings' database, with a sandbox and a Temporal of its own."""
    own = own.model_copy(update={"sandbox_smtp_port": free_port(), "task_queue": f"journeys-{free_port()}", "max_cached_workflows": 0})
    database = Database(own.database_url.get_secret_value(), pool_size=40)
    ready = asyncio.Event()
    sandbox = asyncio.create_task(serve(own, ready))
    await ready.wait()
    async with temporal_server(own) as server:
        yield Stack(own, Services(settings=own, database=database, temporal=server.client), server)
    sandbox.cancel()
    await asyncio.gather(sandbox, return_exceptions=True)
    await database.close()


@pytest.fixture(scope="session", autouse=True)
def patient_api() -> Iterator[None]:
    """A busy machine lets a word to a workflow wait for longer than a person would: the API answers 503 by then, and these tests do not
    ask again. They are not about that; tests/api is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(temporal, "PATIENCE", timedelta(seconds=60))
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """With a database of its own: upkeep looks after every organization that it finds, other tests' leftovers included."""
    async with standing(settings_of(another_database(postgres, "journeys"), tmp_path_factory.mktemp("journeys"))) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def acme(stack: Stack) -> AsyncIterator[Organization]:
    organization = await stack.found()
    yield organization
    await organization.client.aclose()
