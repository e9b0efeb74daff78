from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from models.settings import Settings
from tests.temporal import temporal_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(settings: Settings) -> AsyncIterator[WorkflowEnvironment]:
    async with temporal_server(settings) as environment:
        yield environment


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def short_history_server(settings: Settings) -> AsyncIterator[WorkflowEnvironment]:
    """Suggests continue-as-new after a few dozen events."""
    async with temporal_server(settings, "limit.historyCount.suggestContinueAsNew=30") as environment:
        yield environment
