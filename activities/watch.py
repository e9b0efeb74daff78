"""Whether what is being sent may still be sent: one look serves every batch of a process that would look at the same."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from activities.contracts.payload import Scope
from models.store import connections, deliveries
from models.store.connections import SendingConnection
from models.store.session import Database

LONG_AGO = float("-inf")
LOOK_EVERY = 2.0  # seconds between looks at the pause flags and at the connection, while waiting and before something more begins


@dataclass(frozen=True)
class Seen:
    """`at`: loop time as it was read; what has happened since may be missing."""

    at: float
    paused: str | None  # why nothing of the journey and campaign may leave; a code
    current: bool  # nobody has changed the connection since it was loaded


_Subject = tuple[UUID, UUID, UUID | None, tuple[UUID, datetime] | None]  # organization, journey, campaign, connection and its revision


@dataclass
class _Look:
    scope: Scope
    connection: SendingConnection | None
    at: float | None = None  # loop time of the reading; None: it is still to come, for the database is busy
    seeing: "asyncio.Task[Seen]" = field(init=False)

    def begin(self, database: Database) -> "_Look":
        self.seeing = asyncio.create_task(self._see(database))
        self.seeing.add_done_callback(_heard)
        return self

    def serves(self, since: float, within: float) -> bool:
        """Whether it was read after `since` and not longer than `within` seconds ago, or is still to be read."""
        failed = self.seeing.done() and (self.seeing.cancelled() or self.seeing.exception() is not None)
        return not failed and (self.at is None or (self.at > since and asyncio.get_running_loop().time() - self.at < within))

    async def _see(self, database: Database) -> Seen:
        async with database.organization(self.scope.organization_id) as session:
            self.at = at = asyncio.get_running_loop().time()
            paused = await deliveries.paused_reason(session, self.scope.journey_id, self.scope.campaign_id)
            by = self.connection
            current = by is None or await connections.is_current(session, by.id, by.revision)
        return Seen(at, paused, current)


def _heard(seeing: "asyncio.Task[Seen]") -> None:
    """What it raised is not missing anybody, where all who waited have gone."""
    if not seeing.cancelled():
        seeing.exception()


class Watch:
    """Shared by all batches of a process that send, or by all that do something else: hundreds of a large campaign look at the same pause
    flags and the same connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looks: dict[_Subject, _Look] = {}

    async def look(self, scope: Scope, connection: SendingConnection | None, since: float, within: float) -> Seen:
        """What was read later than `since` (loop time) and at most `within` seconds ago; looks, or waits for who does, where nothing was.
        `connection` None: only the pauses matter.

        Raises what its own look raised: where another's failed, it has looked once more.
        """
        by = None if connection is None else (connection.id, connection.revision)
        subject = (scope.organization_id, scope.journey_id, scope.campaign_id, by)
        if (known := self._looks.get(subject)) is not None and known.serves(since, within):
            with suppress(Exception):  # whoever began it says so
                return await asyncio.shield(known.seeing)  # who gives up takes nobody's look away
        if (known := self._looks.get(subject)) is None or not known.serves(since, within):
            self._looks = {one: look for one, look in self._looks.items() if look.serves(LONG_AGO, within)}
            known = self._looks[subject] = _Look(scope, connection).begin(self._database)
        return await asyncio.shield(known.seeing)
