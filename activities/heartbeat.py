"""Telling Temporal that a batch is alive, so that a lost worker is noticed within seconds and not after hours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

from activities.contracts.execution import HEARTBEAT_EVERY


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """A heartbeat goes out every two seconds while the block runs. Cancellation arrives with its answer."""
    beating = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT_EVERY.total_seconds())
