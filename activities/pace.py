"""The slots of a rate-limited connection: a batch takes few at a time, and near ones only."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from activities.message import Message
from models.domain.journey.interpreter import times_asked
from models.domain.wait_time import shared_instant
from models.store import connections
from models.store.connections import SendingConnection
from models.store.session import Database

SLOTS_AHEAD = timedelta(seconds=2)  # how much of a connection's rate a batch reserves at once; lost when the batch stops
# A batch occupies its worker while it waits for a slot. So it waits for near ones only, and as every waiting batch has reserved
# up to SLOTS_AHEAD, one connection keeps about HORIZON / SLOTS_AHEAD batches waiting, however many want to send through it. And
# after HORIZON it makes room, unless it has the connection nearly to itself.
HORIZON = timedelta(seconds=20)
LONGEST_QUEUE = timedelta(minutes=10)  # how far behind the next free slot a batch is asked to come back


@dataclass
class Pace:
    """One batch's slots on one connection."""

    database: Database
    connection: SendingConnection
    now: Callable[[], datetime]  # the workflow's clock
    database_offset: float  # the database's clock (seconds since the epoch) less loop time
    back_at: datetime | None = None  # the next slot is too far away: when those not begun ask again
    _slots: list[float] = field(default_factory=list)  # loop times reserved and not yet used, ascending
    _began: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    async def slot(self, waiting: Sequence[Message]) -> float | None:
        """The loop time at which the first of these may go. None: too far away; `back_at` says when to ask again."""
        rate = self.connection.rate_per_second
        if rate is None:
            return asyncio.get_running_loop().time()
        if not self._slots:
            await self._reserve(waiting, rate)
        return self._slots.pop(0) if self._slots else None

    async def _reserve(self, waiting: Sequence[Message], rate: float) -> None:
        count = min(max(1, ceil(rate * SLOTS_AHEAD.total_seconds())), len(waiting))
        async with self.database.organization(self.connection.organization_id) as session:
            slots = await connections.reserve_slots(session, self.connection.id, count, self._horizon())
        self._slots = [slot.timestamp() - self.database_offset for slot in slots.reserved]
        if not self._slots:
            left = slots.next_at.timestamp() - self.database_offset - asyncio.get_running_loop().time()
            self.back_at = shared_instant(self.now() + timedelta(seconds=left) + _behind(waiting, rate))

    def _horizon(self) -> timedelta:
        been_here = timedelta(seconds=asyncio.get_running_loop().time() - self._began)
        return HORIZON if been_here < HORIZON else SLOTS_AHEAD


def _behind(waiting: Sequence[Message], rate: float) -> timedelta:
    """How long after the next free slot a batch comes back: by its own length, and later each time, for the more often it has
    come in vain, the more others there are. Over a connection that is merely slow, at once."""
    alone = timedelta(seconds=1 / rate)
    if alone > HORIZON:
        return timedelta(0)
    rounds = 1 + max(times_asked(message.round) for message in waiting)
    return min(alone * len(waiting) * rounds, LONGEST_QUEUE)
