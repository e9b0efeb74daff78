"""Events of requests that come at the same time are accepted together: one transaction for all that wait, as the ledger of sends does."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from api.dependencies import Services
from models.store import events
from models.store.events import Accepted, NewEvent
from models.store.faults import lies_in_the_rows
from models.store.session import Database

AT_ONCE = 1_000  # events of several requests to a transaction; a larger request goes alone


@dataclass
class Asked:
    """One request's events. `done` becomes what was accepted of them, in their order."""

    new: Sequence[NewEvent]
    done: "asyncio.Future[list[Accepted]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass
class Acceptor:
    """One organization's queue. While one transaction is under way, the requests that come share the next."""

    database: Database
    organization_id: UUID
    make_contacts: bool
    asked: list[Asked] = field(default_factory=list)
    writing: "asyncio.Task[None] | None" = None

    async def accept(self, new: Sequence[NewEvent]) -> list[Accepted]:
        """The events are on record. Raises what the transaction raised. Of a transaction that some request's events broke, each request
        is tried once more by itself: it is refused for its own fault only."""
        one = Asked(new)
        self.asked.append(one)
        if self.writing is None or self.writing.done():
            self.writing = asyncio.create_task(self._write())
        return await one.done

    async def _write(self) -> None:
        while self.asked:
            batch = self._next()
            try:
                await self._accept(batch)
            except Exception as error:
                _fail(batch, error)
            except BaseException as error:
                _fail(batch, error)
                raise

    async def _accept(self, batch: Sequence[Asked]) -> None:
        try:
            accepted = await self._together(batch)
        except Exception as error:
            if len(batch) == 1 or not lies_in_the_rows(error):
                raise
            await self._one_by_one(batch)
        else:
            _answer(batch, accepted)

    async def _together(self, batch: Sequence[Asked]) -> list[Accepted]:
        async with self.database.organization(self.organization_id) as session:
            return await events.accept(session, [event for one in batch for event in one.new], make_contacts=self.make_contacts)

    async def _one_by_one(self, batch: Sequence[Asked]) -> None:
        for one in batch:
            try:
                _answer([one], await self._together([one]))
            except Exception as error:
                if not lies_in_the_rows(error):
                    raise
                _fail([one], error)

    def _next(self) -> list[Asked]:
        batch, size = [self.asked.pop(0)], 0
        size += len(batch[0].new)
        while self.asked and size + len(self.asked[0].new) <= AT_ONCE:
            batch.append(self.asked.pop(0))
            size += len(batch[-1].new)
        return batch


def acceptor(services: Services, organization_id: UUID, make_contacts: bool) -> Acceptor:
    """The organization's queue of this process. An idle one is forgotten by the next that is made."""
    key = (organization_id, make_contacts)
    found: Acceptor | None = services.accepting.get(key)
    if found is None:
        for idle in [each for each, one in services.accepting.items() if one.writing is None or one.writing.done()]:
            del services.accepting[idle]
        found = services.accepting[key] = Acceptor(services.database, organization_id, make_contacts)
    return found


def _answer(batch: Sequence[Asked], accepted: Sequence[Accepted]) -> None:
    first = 0
    for one in batch:
        mine = accepted[first : first + len(one.new)]
        first += len(one.new)
        if not one.done.done():
            one.done.set_result([Accepted(position, each.id, each.contact_id, each.new) for position, each in enumerate(mine)])


def _fail(batch: Sequence[Asked], error: BaseException) -> None:
    for one in batch:
        if not one.done.done():
            one.done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
