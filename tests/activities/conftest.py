from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.lines import Lines
from activities.send import SendActivities
from activities.versions import Versions
from models.settings import Settings
from models.store.session import Database
from tests.activities.recorder import recording
from tests.activities.world import FakeProvider, World


@pytest.fixture
async def world(database: Database, settings: Settings) -> World:
    return await World(database, settings).build()


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def sending(world: World, provider: FakeProvider) -> SendActivities:
    return SendActivities(world.database, world.settings, Versions(), Lines(provider, world.settings.send_concurrency))


@pytest.fixture
def environment() -> ActivityEnvironment:
    return ActivityEnvironment()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def temporal(settings: Settings) -> AsyncIterator[Client]:
    """A server's, where a recorder stands in for the journey workflow."""
    async with recording(settings) as client:
        yield client
