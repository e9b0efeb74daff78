"""The workflow's clock, as an activity reads it."""

import asyncio
from datetime import datetime, timedelta
from typing import Self

from temporalio import activity

from activities.contracts.steps import VisitBatch


class Clock:
    """The clock of the workflow that asked, from `start` (aware UTC) on moved by real time."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    @classmethod
    def of(cls, batch: VisitBatch) -> Self:
        """In an activity. The time in the task queue and that of earlier attempts have passed for the workflow too."""
        info = activity.info()
        return cls(batch.now + max(info.started_time - info.scheduled_time, timedelta(0)))

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time() - self._began)
