"""The claim ledger's writer: fences and settlements of all batches of a process, many to a transaction.

Whoever has something to write puts it in the queue of its organization. One transaction at a time takes everything
that waits there of its kind, so the busier a process is, the fewer commits a message costs.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from activities.braking import Tell, left_to_upkeep
from activities.contracts.sending import SETTLE_PATIENCE
from models.domain.audit import SYSTEM, NewEntry
from models.domain.errors import Unavailable
from models.store import audit, brakes, deliveries, fence, suppressions
from models.store.brakes import Braked
from models.store.deliveries import Settlement
from models.store.faults import lies_in_the_rows
from models.store.fence import Passage, Verdict, Word
from models.store.session import Database, OrganizationSession

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between tries while the database is away


class Unwritable(Exception):
    """A row cannot be written, and repeating it would not help. Says the fault's type only: its text may hold personal data."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"the ledger cannot write this row: {type(error).__name__}")


class Ledger:
    """Shared by all activities of a process."""

    def __init__(self, database: Database, patience: float = SETTLE_PATIENCE.total_seconds(), braked: Tell = left_to_upkeep) -> None:
        """`braked` is awaited with the organization's id and the ids of new brakings, once they are committed."""
        self._database = database
        self._braked = braked
        self._telling: set[asyncio.Task[None]] = set()
        self._patience = patience
        self._writers: dict[UUID, _Writer] = {}

    async def fence(self, organization_id: UUID, passage: Passage) -> Verdict:
        """May this message be handed over now? GO only after the row that says so is committed.

        Raises:
            Unavailable: the database did not answer. The message must not be sent; release it, for the row may say
                that it was handed over.
            Unwritable: this message's row cannot be written. It must not be sent.
        """
        asked = _Asked(passage)
        self._writer(organization_id).add_fence(asked)
        return await asked.answer

    def settle(self, organization_id: UUID, settlement: Settlement) -> "asyncio.Future[None]":
        """Done when the settlement, its audit entry and the suppression it asks for are committed.

        A heard answer must not become `unknown`: while the database is away it is kept and tried again for
        `SETTLE_PATIENCE`. After that the future raises Unavailable. What cannot be written at all raises Unwritable at once, and
        keeps no other settlement from being written.
        """
        told = _Told(settlement, asyncio.get_running_loop().time() + self._patience)
        self._writer(organization_id).add_settlement(told)
        return told.done

    def _tell_of(self, organization_id: UUID, braked: Sequence[Braked]) -> None:
        """What was braked is told to its runs, beside the ledger's work. Failing that, upkeep does."""
        if braked:
            telling = asyncio.create_task(self._braked(organization_id, [one.id for one in braked]), name=f"braking {organization_id}")
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    def _writer(self, organization_id: UUID) -> "_Writer":
        writer = self._writers.get(organization_id)
        if writer is None or writer.idle:
            writer = self._writers[organization_id] = _Writer(self._database, organization_id, self._tell_of)
        return writer


def _future() -> "asyncio.Future[None]":
    return asyncio.get_running_loop().create_future()


def _verdict() -> "asyncio.Future[Verdict]":
    return asyncio.get_running_loop().create_future()


@dataclass
class _Asked:
    passage: Passage
    answer: "asyncio.Future[Verdict]" = field(default_factory=_verdict)


@dataclass
class _Told:
    settlement: Settlement
    deadline: float  # loop time
    done: "asyncio.Future[None]" = field(default_factory=_future)


One = TypeVar("One", _Asked, _Told)


class _Writer:
    """One organization's queue. Runs while there is something in it."""

    def __init__(self, database: Database, organization_id: UUID, braked: Callable[[UUID, Sequence[Braked]], None]) -> None:
        self.database = database
        self.organization_id = organization_id
        self.braked = braked
        self.asked: list[_Asked] = []
        self.told: list[_Told] = []
        self.writing: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self.writing is None or self.writing.done()

    def add_fence(self, asked: _Asked) -> None:
        self.asked.append(asked)
        self._wake()

    def add_settlement(self, told: _Told) -> None:
        self.told.append(told)
        self._wake()

    def _wake(self) -> None:
        if self.idle:
            self.writing = asyncio.create_task(self._write(), name=f"ledger {self.organization_id}")

    async def _write(self) -> None:
        pause = FIRST_PAUSE
        while self.asked or self.told:
            await asyncio.sleep(0)  # whoever is ready in this turn of the loop joins the transaction
            asked, self.asked = self.asked, []
            told, self.told = self.told, []
            if await self._write_down(asked, told):
                pause = FIRST_PAUSE
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    async def _write_down(self, asked: Sequence[_Asked], told: Sequence[_Told]) -> bool:
        """All of these are answered. False: the database is away; the settlements are back in the queue.

        The settlements first, for an opt-out among them, or what failed and brakes, holds for those that ask. And each in a transaction of
        its own: a settlement waits for the audit chain's head, and whoever has it may be withdrawing what the fence would have judged by.
        """
        if not await self._written(told, self._settle):
            self._fail(asked, [])
            return False
        return await self._written(asked, self._let_pass)

    async def _written(self, ones: Sequence[One], write: Callable[[Sequence[One]], Awaitable[None]]) -> bool:
        """All of these are answered, by one transaction where that is possible: one that cannot be written takes no other with it."""
        if not ones:
            return True
        try:
            await write(ones)
        except Exception as error:
            log.warning("the ledger could not be written", extra={"error": type(error).__name__, "rows": len(ones)})
            if not lies_in_the_rows(error):
                self._keep_or_fail(ones)
                return False
            if len(ones) == 1:
                self._refuse(ones[0], error)
                return True
            return await self._written_one_by_one(ones, write)
        return True

    async def _written_one_by_one(self, ones: Sequence[One], write: Callable[[Sequence[One]], Awaitable[None]]) -> bool:
        for number, one in enumerate(ones):
            if not await self._written([one], write):
                self._keep_or_fail(ones[number + 1 :])
                return False
        return True

    async def _settle(self, told: Sequence[_Told]) -> None:
        settlements = [one.settlement for one in told]
        async with self.database.organization(self.organization_id) as session:
            settled = await deliveries.settle(session, settlements)
            suppressed = await _suppress(session, settlements)
            braked = await brakes.count(session, settled)
            entries = [*suppressed, *(one.entry() for one in settled), *(one.entry for one in braked)]
            await audit.append(session, entries)  # last: locks the chain's head
        self.braked(self.organization_id, braked)
        for one in told:
            if not one.done.done():
                one.done.set_result(None)

    async def _let_pass(self, asked: Sequence[_Asked]) -> None:
        """Nothing waits between the judgement and the commit: the rows are locked by a statement before, and no audit entry follows."""
        async with self.database.organization(self.organization_id) as session:
            await deliveries.lock(session, [one.passage.id for one in asked])
            verdicts = await fence.let_pass(session, [one.passage for one in asked])
        for one in asked:
            if not one.answer.done():
                one.answer.set_result(verdicts.get(one.passage.id, Verdict(Word.LOST)))

    def _refuse(self, one: _Asked | _Told, error: Exception) -> None:
        future: asyncio.Future[Any] = one.answer if isinstance(one, _Asked) else one.done
        if not future.done():
            future.set_exception(Unwritable(error))

    def _keep_or_fail(self, ones: Sequence[_Asked] | Sequence[_Told]) -> None:
        self._fail([one for one in ones if isinstance(one, _Asked)], [one for one in ones if isinstance(one, _Told)])

    def _fail(self, asked: Sequence[_Asked], told: Sequence[_Told]) -> None:
        """Fences fail at once, for nothing is sent without them; settlements are kept until their deadline."""
        away = Unavailable("The database did not answer.")
        for one in asked:
            if not one.answer.done():
                one.answer.set_exception(away)
        now = asyncio.get_running_loop().time()
        for two in told:
            if two.deadline < now and not two.done.done():
                two.done.set_exception(away)
        self.told = [*(two for two in told if not two.done.done()), *self.told]


async def _suppress(session: OrganizationSession, settlements: Sequence[Settlement]) -> list[NewEntry]:
    """Addresses that have opted out are suppressed. Answers what the audit chain is to be told."""
    hashes: defaultdict[str, list[bytes]] = defaultdict(list)
    for one in settlements:
        if one.suppress is not None:
            channel, hashed = one.suppress
            hashes[channel].append(hashed)
    entries: list[NewEntry] = []
    for channel in sorted(hashes):
        added = await suppressions.add(session, channel, hashes[channel], "unsubscribed", "provider")
        entries += suppressions.added_entries(added, channel, "unsubscribed", SYSTEM)
    return entries
