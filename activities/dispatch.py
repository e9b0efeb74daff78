"""Carrying the claimed messages of one batch over one connection: paced, fenced, settled."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from activities.contracts.payload import Scope
from activities.contracts.sending import SendOutcome, SendResult
from activities.ledger import Ledger
from activities.lines import CONNECTION_CHANGED, Line, mark_broken, send_guarded
from activities.message import Composer, Message
from activities.outcomes import Concluder, Conclusion
from activities.pace import Pace
from activities.providers.port import ABORTED, ProviderAnswer
from activities.watch import LOOK_EVERY, Watch
from models.domain.decision import Reason
from models.domain.errors import Unavailable
from models.domain.template import Unsendable
from models.store.fence import Passage, Verdict, Word
from models.store.session import Database
from models.store.suppressions import address_hash

FRESH = timedelta(seconds=5)  # for how long what the fence said may be acted on


@dataclass(frozen=True)
class SendTools:
    """What every dispatch of a process works with."""

    database: Database
    ledger: Ledger
    watch: Watch
    composer: Composer
    suppression_key: bytes


@dataclass(frozen=True)
class Stop:
    """Why a batch begins no further messages. `outcome` None: this attempt cannot go on, another one will."""

    outcome: SendOutcome | None
    reason: str | None
    back_at: datetime | None = None  # when those not begun ask again; None: the workflow knows


@dataclass
class Dispatch:
    """The messages of one batch that leave over one line."""

    tools: SendTools
    scope: Scope
    line: Line
    messages: Sequence[Message]
    organization: Mapping[str, Any]
    concluder: Concluder
    now: Callable[[], datetime]  # the workflow's clock
    pace: Pace
    stop: Stop | None = None
    results: dict[UUID, SendResult] = field(default_factory=dict)
    lost: list[Message] = field(default_factory=list)  # another attempt owns them
    settling: "list[asyncio.Future[None]]" = field(default_factory=list)
    outdated: bool = False  # the connection has been changed since it was loaded
    _looked: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Every message has a result, is `lost`, or was never begun because of `stop`.

        Raises what a message's task raised, after all the others have ended.
        """
        waiting = deque(self.messages)
        carrying: list[asyncio.Task[None]] = []
        try:
            while waiting:
                if waiting[0].too_late(self.now()):
                    self._ask_again(waiting.popleft())
                elif await self._may_begin(waiting):
                    carrying.append(asyncio.create_task(self._carry_and_leave(waiting.popleft())))
                else:
                    break
        finally:
            ended = await asyncio.gather(*carrying, return_exceptions=True)
        for fault in ended:
            if fault is not None:
                raise fault
        self._answer_the_rest(waiting)
        self._forget_what_is_outdated()
        for failed in await asyncio.gather(*self.settling, return_exceptions=True):
            if failed is not None:
                raise failed

    def _ask_again(self, message: Message) -> None:
        """Quiet hours have begun while it waited: the checks are asked again, and hold it."""
        self._tell(self.concluder.released(message, SendOutcome.PAUSED, Reason.QUIET_HOURS, self.now()))

    def _answer_the_rest(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if self.stop is None:
                self._tell(self.concluder.released(message, SendOutcome.THROTTLED, "rate_limited", self.pace.back_at))
            elif self.stop.outcome is not None:
                self._tell(self.concluder.released(message, self.stop.outcome, self.stop.reason, self.stop.back_at))

    def _forget_what_is_outdated(self) -> None:
        """A changed connection may work: nobody waits for it to be mended, for that has been told already."""
        if self.outdated:
            for run_id, result in self.results.items():
                if result.outcome is SendOutcome.CONNECTION_BROKEN:
                    self.results[run_id] = replace(result, outcome=SendOutcome.PAUSED, reason=CONNECTION_CHANGED, retry_at=self.now())

    # --- pace ------------------------------------------------------------------------------------------------------

    async def _may_begin(self, waiting: Sequence[Message]) -> bool:
        """The next message's slot has come and it has a place. False: the batch stops here, and these are not begun."""
        slot = await self.pace.slot(waiting)
        if slot is None:
            return False
        await self._sleep_until(slot)
        if self.stop is None:
            await self.line.places.acquire()
            try:
                if self.stop is None and asyncio.get_running_loop().time() - self._looked >= LOOK_EVERY:
                    await self._look()
            except BaseException:
                self.line.places.release()
                raise
            if self.stop is None:
                return True
            self.line.places.release()
        return False

    async def _sleep_until(self, slot: float) -> None:
        """Sleeps until this loop time, or until the batch is stopped or paused."""
        loop = asyncio.get_running_loop()
        while self.stop is None and (left := slot - loop.time()) > 0:
            await asyncio.sleep(min(left, LOOK_EVERY))
            if left > LOOK_EVERY:
                await self._look()

    async def _look(self) -> None:
        """Whether something was paused, or the connection changed: then its password and sender are others than those loaded."""
        seen = await self.tools.watch.look(self.scope, self.line.connection, self._looked, LOOK_EVERY / 2)
        self._looked = seen.at
        if seen.paused is not None:
            self.halt(SendOutcome.PAUSED, seen.paused)
        if not seen.current:
            self._load_anew()

    def _load_anew(self) -> None:
        """What is not begun asks again at once, and goes by the connection as it is then."""
        self.outdated = True
        self.halt(SendOutcome.PAUSED, CONNECTION_CHANGED, self.now())

    def halt(self, outcome: SendOutcome | None, reason: str | None, back_at: datetime | None = None) -> None:
        """No further message is begun. The first reason stands."""
        self.stop = self.stop or Stop(outcome, reason, back_at)

    # --- one message -----------------------------------------------------------------------------------------------

    async def _carry_and_leave(self, message: Message) -> None:
        try:
            await self._carry(message)
        finally:
            self.line.places.release()

    async def _carry(self, message: Message) -> None:
        if message.address is None:
            reason = Reason.CONTACT_GONE if message.recipient is None else Reason.NO_ADDRESS
            return self._tell(self.concluder.settled(message, "refused", SendOutcome.REFUSED, reason))
        try:
            mail = self.tools.composer.compose(message, self.line.connection, self.organization, datetime.now(UTC))
        except Unsendable as unsendable:
            return self._tell(self.concluder.settled(message, "failed", SendOutcome.CONTENT_PERMANENT, unsendable.reason))
        gate = _Gate(self, message, address_hash(self.tools.suppression_key, message.step.channel, message.address))
        await self._conclude(message, await send_guarded(self.line, mail, gate), gate)

    async def _conclude(self, message: Message, answer: ProviderAnswer, gate: "_Gate") -> None:
        if answer.outcome == ABORTED:
            return self._turned_back(message, gate)
        told = self.concluder.answered(message, answer, self.now())
        if answer.outcome is SendOutcome.OPTED_OUT:
            told = told.suppressing(message.step.channel, gate.address_hash)
        self._tell(told)
        if answer.outcome is SendOutcome.CONNECTION_BROKEN:
            self.halt(SendOutcome.CONNECTION_BROKEN, answer.reason)
            if not await mark_broken(self.tools.database, self.line.connection, answer.reason or SendOutcome.CONNECTION_BROKEN):
                self.outdated = True

    def _turned_back(self, message: Message, gate: "_Gate") -> None:
        """Certainly not sent."""
        match gate.verdict:
            case None if not gate.asked and message.too_late(self.now()):
                self._ask_again(message)
            case None if not gate.asked:  # halted on the way to the fence
                self._answer_the_rest([message])
            case None:  # the database did not answer there; its row may say that it was handed over: release it, or it would end as unknown
                self.halt(None, "database_unavailable")
                self._tell(self.concluder.released(message, SendOutcome.TRANSIENT, "database_unavailable"))
            case Verdict(word=Word.GO) if not gate.passed:  # quiet hours began after the fence was asked; its row says it was handed over
                self._ask_again(message)
            case Verdict(word=Word.REFUSED, reason=reason):
                self._tell(self.concluder.settled(message, "refused", SendOutcome.REFUSED, reason))
            case Verdict(word=Word.HELD, reason=reason):
                self._tell(self.concluder.released(message, SendOutcome.PAUSED, reason))
            case Verdict(word=Word.PAUSED, reason=reason):
                self.halt(SendOutcome.PAUSED, reason)
                self._tell(self.concluder.released(message, SendOutcome.PAUSED, reason))
            case _:
                self.lost.append(message)

    def _tell(self, told: Conclusion) -> None:
        self.results[told.result.run_id] = told.result
        if told.settlement is not None:
            self.settling.append(self.tools.ledger.settle(self.scope.organization_id, told.settlement))


@dataclass
class _Gate:
    """The way of one message to the fence."""

    dispatch: Dispatch
    message: Message
    address_hash: bytes
    asked: bool = False
    verdict: Verdict | None = None
    passed: bool = False  # the provider was told to go on
    _asked_at: datetime | None = None  # the workflow's clock: nothing that happened before is missing in the verdict

    async def transmit(self) -> bool:
        if self.passed:
            return await self._still_passes()
        if self.dispatch.stop is not None or self.message.too_late(self.dispatch.now()):
            return False
        return await self._ask()

    async def _still_passes(self) -> bool:
        """The first byte is about to be written. What is not begun stops with its batch; this one has passed, and goes on if it may."""
        now = self.dispatch.now()
        if self.message.too_late(now):
            self.passed = False
        elif self._asked_at is None or now - self._asked_at >= FRESH:
            self.passed = False  # until it has passed again: whatever happens meanwhile, nothing was sent
            return await self._ask(again=True)
        return self.passed

    async def _ask(self, *, again: bool = False) -> bool:
        dispatch, message = self.dispatch, self.message
        self.asked, self.verdict, self._asked_at = True, None, dispatch.now()
        channel, address = message.step.channel, message.address
        assert address is not None  # or it would not have been composed
        passage = Passage(message.id, dispatch.concluder.attempt, channel, self.address_hash, address, message.hours, again)
        try:
            self.verdict = await dispatch.tools.ledger.fence(dispatch.scope.organization_id, passage)
        except Unavailable:
            return False
        self.passed = self.verdict.word is Word.GO and not message.too_late(dispatch.now())
        return self.passed
