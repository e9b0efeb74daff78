"""Work that keeps a processor busy: in a thread of its own, never for long, and so that nobody keeps others waiting."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from models.domain.errors import Unavailable

Result = TypeVar("Result")
Heed = Callable[[], None]

PATIENCE = timedelta(seconds=30)  # for a place
SLICE, BREATH = 0.002, 0.0001  # seconds: after so much work, so much of a rest, in which other threads get their turn


class Processor:
    """So many at once, and of one organization one: whoever asks for much waits behind themselves, not before others. Each at most
    `longest`, of a processor's time: how busy others keep it does not matter."""

    def __init__(self, at_once: int, longest: timedelta) -> None:
        self.longest = longest
        self._places = asyncio.Semaphore(at_once)
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def work(self, organization_id: UUID, what: str, way_out: str, do: Callable[[Heed], Result]) -> Result:
        """What `do` gives. It calls what it is given at every step of its work, and lets through what that raises.

        Raises:
            Unavailable: it worked for `longest`, and is given up; `what` it was, and what to do then (`way_out`). Or there was no place
                for it within `PATIENCE`.
        """
        turn = self._turns.get(organization_id)
        if turn is None:
            turn = self._turns[organization_id] = asyncio.Lock()
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(PATIENCE.total_seconds()):
                    await held.enter_async_context(turn)
                    await held.enter_async_context(self._places)
            except TimeoutError:
                raise Unavailable(f"{what} has to wait for others, and has waited for long enough. Repeat in a moment.") from None
            limit = self.longest.total_seconds()
            effort = _Effort(limit, f"{what} took more than {limit:g} seconds of work and was given up. {way_out}")
            try:
                return await asyncio.to_thread(do, effort.heed)
            finally:
                effort.over = True


class _Effort:
    """One thread's work. `over`: nobody waits for it any more."""

    def __init__(self, limit: float, too_long: str) -> None:
        self.over = False
        self._limit = limit  # seconds
        self._too_long = too_long
        self._began: float | None = None
        self._rested = 0.0

    def heed(self) -> None:
        """Raises Unavailable when this thread has worked for too long, or in vain."""
        worked = time.thread_time()
        if self._began is None:
            self._began = self._rested = worked
        if self.over or worked - self._began > self._limit:
            raise Unavailable(self._too_long)
        if worked - self._rested > SLICE:
            time.sleep(BREATH)  # lets go of the interpreter's lock: the event loop answers others
            self._rested = worked
