"""send: each message is claimed, handed to its provider at most once, and its outcome settled."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.braking import Tell, left_to_upkeep
from activities.claiming import ClaimedBatch, Claimer
from activities.clock import Clock
from activities.contracts.sending import SendResult
from activities.contracts.steps import VisitBatch
from activities.dispatch import Dispatch, SendTools
from activities.heartbeat import heartbeating
from activities.ledger import Ledger
from activities.lines import Lines
from activities.message import Composer
from activities.other_attempts import Others
from activities.outcomes import Concluder
from activities.pace import Pace
from activities.versions import Versions
from activities.watch import Watch
from models.settings import Settings
from models.store.session import Database
from models.tables.base import new_id


class SendActivities:
    """`lines` are those of every activity of the process: a connection's limit holds for all of them together."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        versions: Versions,
        lines: Lines,
        braked: Tell = left_to_upkeep,
    ) -> None:
        self.claimer = Claimer(database, versions, settings)
        self.lines = lines
        ledger, composer = Ledger(database, braked=braked), Composer(settings)
        self.tools = SendTools(database, ledger, Watch(database), composer, settings.derive_key("suppressions"))

    def methods(self) -> list[Callable[..., Any]]:
        return [self.send_messages]

    @activity.defn(name="send_messages")
    async def send_messages(self, batch: VisitBatch) -> list[SendResult]:
        """Claims, calls, settles; answers per run.

        Safe to run twice, also at the same time: a delivery row, unique by (run, step, visit), belongs to one attempt.
        What is settled is answered from its row. What was certainly not handed over is taken over. What another
        attempt has handed over is waited for, and is `unknown` when that attempt stays silent for `TRANSMIT_LEASE`:
        so a worker that dies between the provider's yes and our record leaves an `unknown`, never a second message. What a
        replay finds sent by the run that it replays is answered so, and not claimed.

        When the worker goes away, or the activity is cancelled, no message is begun any more, those handed over are
        finished and settled, and it raises.
        """
        clock = Clock.of(batch)
        attempt = new_id()
        async with heartbeating():
            claimed = await self.claimer.claim(batch, attempt, clock.now())
            dispatches = [await self._dispatch(batch, claimed, number, attempt, clock) for number in range(len(claimed.shares))]
            async with _halted_with_the_worker(dispatches):
                await _run_to_a_clean_end(dispatches)
                results = {run_id: result for dispatch in dispatches for run_id, result in dispatch.results.items()}
                results |= await self._ask_others(batch, claimed, dispatches, clock)
                results |= claimed.kept
        if len(results) < len(batch.visits):
            raise ApplicationError("this attempt was halted; the next one goes on", type="Halted")
        return [results[visit.run_id] for visit in batch.visits]

    async def _dispatch(self, batch: VisitBatch, claimed: ClaimedBatch, number: int, attempt: UUID, clock: Clock) -> Dispatch:
        share = claimed.shares[number]
        pace = Pace(self.tools.database, share.connection, clock.now, claimed.database_offset)
        return Dispatch(
            tools=self.tools,
            scope=batch.scope,
            line=await self.lines.line(share.connection),
            messages=share.messages,
            organization=claimed.organization,
            concluder=Concluder(attempt),
            now=clock.now,
            pace=pace,
        )

    async def _ask_others(
        self, batch: VisitBatch, claimed: ClaimedBatch, dispatches: Sequence[Dispatch], clock: Clock
    ) -> dict[UUID, SendResult]:
        lost = [claimed.wanted[message.run_id] for dispatch in dispatches for message in dispatch.lost]
        halted = lambda: any(dispatch.stop is not None and dispatch.stop.outcome is None for dispatch in dispatches)  # noqa: E731
        others = Others(self.tools.database, batch.scope.organization_id, clock.now, halted)
        return await others.results([*claimed.others, *lost])


@asynccontextmanager
async def _halted_with_the_worker(dispatches: Sequence[Dispatch]) -> AsyncIterator[None]:
    """While the block runs, a worker that shuts down halts the dispatches."""

    async def watch() -> None:
        await activity.wait_for_worker_shutdown()
        _halt(dispatches)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _run_to_a_clean_end(dispatches: Sequence[Dispatch]) -> None:
    """All have run. Cancelled meanwhile: what is handed over is finished and settled first."""
    running = asyncio.gather(*(dispatch.run() for dispatch in dispatches), return_exceptions=True)
    try:
        ended = await asyncio.shield(running)
    except asyncio.CancelledError:
        _halt(dispatches)
        await running
        raise
    for exception in ended:
        if exception is not None:
            raise exception


def _halt(dispatches: Sequence[Dispatch]) -> None:
    for dispatch in dispatches:
        dispatch.halt(None, "worker_going_away")
