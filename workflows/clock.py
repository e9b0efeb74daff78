"""Many sleepers, one timer per instant."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

from temporalio import workflow

Sleeper = TypeVar("Sleeper")


class SharedTimers(Generic[Sleeper]):
    """Calls `ring` with each sleeper once the workflow's time has reached its instant (aware UTC).

    Sleepers of the same instant share one durable timer, which is cancelled when the last of them leaves.
    """

    def __init__(self, ring: Callable[[Sleeper], None]) -> None:
        self._ring = ring
        self._sleepers: dict[datetime, dict[Sleeper, None]] = {}  # in the order they came
        self._timers: dict[datetime, asyncio.Task[None]] = {}

    def set(self, sleeper: Sleeper, at: datetime) -> None:
        self._sleepers.setdefault(at, {})[sleeper] = None
        if at not in self._timers:
            self._timers[at] = asyncio.create_task(self._run(at))

    def is_set(self, at: datetime) -> bool:
        """Whether others sleep until then, and have not been rung yet."""
        return at in self._timers

    def leave(self, sleeper: Sleeper, at: datetime) -> None:
        """The sleeper is not rung any more. Safe when it has been rung already."""
        sleepers = self._sleepers.get(at)
        if sleepers is None or sleeper not in sleepers:
            return
        del sleepers[sleeper]
        if sleepers:
            return
        del self._sleepers[at]
        self._timers.pop(at).cancel()

    async def _run(self, at: datetime) -> None:
        delay = (at - workflow.now()).total_seconds()
        if delay > 0:
            await workflow.sleep(delay, summary=f"until {at:%Y-%m-%d %H:%M:%S} UTC")
        self._timers.pop(at, None)
        for sleeper in self._sleepers.pop(at, {}):
            self._ring(sleeper)
