"""The workflow's clock, as an activity reads it."""

import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Self

from temporalio import activity

from activities.contracts.steps import VisitBatch

Seconds = Callable[[], float]

# The monotonic clock, and with it the event loop's, stands still while the host is suspended; that since boot does not. Where the host was
# halted from outside, only the wall clock hears of it, once it is set again.
_SINCE_BOOT: Final[Seconds] = partial(time.clock_gettime, time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic
CLOCKS: Final[Sequence[Seconds]] = (_SINCE_BOOT, time.time)


class Clock:
    """The clock of the workflow that asked, from `start` (aware UTC) on moved by real time: by that of its `clocks` which has gone
    furthest. If one goes wrong, a message that could still leave asks again; none leaves too late."""

    def __init__(self, start: datetime, clocks: Sequence[Seconds] = CLOCKS) -> None:
        self._start = start
        self._clocks = [(read, read()) for read in clocks]

    @classmethod
    def of(cls, batch: VisitBatch) -> Self:
        """In an activity. The time in the task queue and that of earlier attempts have passed for the workflow too."""
        info = activity.info()
        return cls(batch.now + max(info.started_time - info.scheduled_time, timedelta(0)))

    def now(self) -> datetime:
        return self._start + timedelta(seconds=max(read() - began for read, began in self._clocks))
