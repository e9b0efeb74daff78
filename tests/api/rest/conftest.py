"""A journey of Alice's and what it needs, with a Temporal that only remembers what it was told.

A file whose journey is another, or whose Temporal does more, has a fixture of the same name.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from models.settings import Settings
from models.store.session import Database
from tests.api.conftest import Person
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings
from tests.api.rest.fake_temporal import FakeTemporal
from tests.inbox import serving


@pytest.fixture
def temporal() -> FakeTemporal:
    return FakeTemporal()


@pytest_asyncio.fixture(loop_scope="session")
async def around(database: Database, alice: Person) -> Surroundings:
    return await acme.surround(database, alice)


@pytest_asyncio.fixture(loop_scope="session")
async def journey(alice: Person, around: Surroundings) -> str:
    """The id of a journey with one published version."""
    return await acme.publish(alice, around)


@pytest_asyncio.fixture(loop_scope="session")
async def served(settings: Settings) -> AsyncIterator[Settings]:
    """Of the sandbox's inbox, running."""
    async with serving(settings) as running:
        yield running
