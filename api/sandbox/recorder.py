"""Storing what the inbox receives before it says yes: messages that arrive together share one transaction."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from models.store import sandbox
from models.store.sandbox import ReceivedMessage
from models.store.session import Database

DATABASE_SECONDS = 10.0  # per attempt
CERTAINTY_SECONDS = 60.0  # how long to find out whether a commit happened
FLUSH_SECONDS = 0.5

log = logging.getLogger(__name__)


class NotStored(Exception):
    """Certainly not stored: the sender may be told to try again."""


class Uncertain(Exception):
    """The database went away during the commit and did not come back in time: the sender must not be told anything."""


@dataclass(eq=False)
class _Waiting:
    organization_id: UUID
    message: ReceivedMessage
    stored: asyncio.Future[None]


class Recorder:
    """Group commit: while one transaction runs, the next messages gather."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        self._discarded: Counter[UUID] = Counter()

    async def store(self, organization_id: UUID, message: ReceivedMessage) -> None:
        """The message is committed. Raises NotStored or Uncertain."""
        waiting = _Waiting(organization_id, message, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        # A sender that hangs up does not undo what it handed over.
        await asyncio.shield(waiting.stored)

    def discard(self, organization_id: UUID) -> None:
        self._discarded[organization_id] += 1

    async def run(self) -> None:
        """Stores and counts until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._store_groups())
            group.create_task(self._write_counts())

    async def _store_groups(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            taken, self._waiting = self._waiting, []
            organizations = {waiting.organization_id for waiting in taken}
            await asyncio.gather(*(self._store_group(one, [w for w in taken if w.organization_id == one]) for one in organizations))

    async def _store_group(self, organization_id: UUID, group: Sequence[_Waiting]) -> None:
        try:
            await self._commit(organization_id, [waiting.message for waiting in group])
        except (NotStored, Uncertain) as error:
            for waiting in group:
                waiting.stored.set_exception(error)
                waiting.stored.exception()  # a sender that hung up does not ask
        else:
            for waiting in group:
                waiting.stored.set_result(None)

    async def _commit(self, organization_id: UUID, messages: Sequence[ReceivedMessage]) -> None:
        loop = asyncio.get_running_loop()
        deadline, in_doubt = loop.time() + CERTAINTY_SECONDS, False
        while True:
            written = False
            try:
                async with asyncio.timeout(DATABASE_SECONDS), self._database.organization(organization_id) as session:
                    await sandbox.store_messages(session, messages)
                    written = True
                return
            except Exception as error:
                log.warning("the sandbox could not store %d messages: %s", len(messages), type(error).__name__)
                in_doubt = in_doubt or written
                if not in_doubt:
                    raise NotStored from None
                if loop.time() > deadline:
                    raise Uncertain from None
            # The ids are ours, so storing again settles whether the commit happened.
            await asyncio.sleep(0.3)

    async def _write_counts(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            counts, self._discarded = self._discarded, Counter()
            for organization_id, more in counts.items():
                try:
                    async with asyncio.timeout(DATABASE_SECONDS), self._database.organization(organization_id) as session:
                        await sandbox.count_discarded(session, more)
                except Exception:
                    self._discarded[organization_id] += more
