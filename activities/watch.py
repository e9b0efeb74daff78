"""Whether what is being sent may still be sent: one look serves every batch of a process that would look at the same."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from activities.contracts.payload import Scope
from models.store import connections, deliveries
from models.store.connections import SendingConnection
from models.store.session import Database


@dataclass(frozen=True)
class Seen:
    """`at`: loop time as the look began; what has happened since may be missing."""

    at: float
    paused: str | None  # why nothing of the journey and campaign may leave; a code
    current: bool  # nobody has changed the connection since it was loaded


_Subject = tuple[UUID, UUID, UUID | None, UUID, object]  # organization, journey, campaign, connection and its revision


@dataclass(frozen=True)
class _Look:
    at: float
    seeing: "asyncio.Task[Seen]"

    @property
    def failed(self) -> bool:
        return self.seeing.done() and (self.seeing.cancelled() or self.seeing.exception() is not None)


class Watch:
    """Shared by all batches of a process: hundreds of a large campaign look at the same pause flags and the same connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._looks: dict[_Subject, _Look] = {}

    async def look(self, scope: Scope, connection: SendingConnection, since: float, within: float) -> Seen:
        """What was seen later than `since` (loop time) and at most `within` seconds ago; looks, or waits for who does, where nothing was.

        Raises what the look raised, for everybody who waited for it.
        """
        now = asyncio.get_running_loop().time()
        subject = (scope.organization_id, scope.journey_id, scope.campaign_id, connection.id, connection.revision)
        known = self._looks.get(subject)
        if known is None or known.at <= since or now - known.at >= within or known.failed:
            self._looks = {one: look for one, look in self._looks.items() if now - look.at < within}
            known = self._looks[subject] = _Look(now, asyncio.create_task(self._see(scope, connection, now)))
        return await asyncio.shield(known.seeing)  # who gives up takes nobody's look away

    async def _see(self, scope: Scope, connection: SendingConnection, at: float) -> Seen:
        async with self._database.organization(scope.organization_id) as session:
            paused = await deliveries.paused_reason(session, scope.journey_id, scope.campaign_id)
            current = await connections.is_current(session, connection.id, connection.revision)
        return Seen(at, paused, current)
