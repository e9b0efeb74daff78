"""What every implementation of a step kind gets and gives."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.clock import Clock
from activities.contracts.payload import Scope
from activities.contracts.steps import StepAnswer, StepVisit
from activities.lines import Lines
from activities.providers.webhook import Webhooks
from activities.versions import Versions
from activities.watch import LOOK_EVERY, Watch
from models.domain.back_off import doubled
from models.domain.journey.interpreter import times_asked
from models.domain.journey.steps.base import StepModel
from models.domain.wait_time import shared_instant
from models.settings import Settings
from models.store.effects import EffectRow, Settlement, Visit
from models.store.faults import Fault, fault_of
from models.store.session import Database

Answers = dict[UUID, StepAnswer]  # by run
Kind = TypeVar("Kind", bound=StepModel)
End = TypeVar("End")
CONTACT_GONE = "contact_gone"
FIRST_LOOK, LONGEST_LOOK = timedelta(seconds=15), timedelta(minutes=5)  # at a pause; doubled in between, as for sends


@dataclass(frozen=True)
class EffectTools:
    """What the effects of a process work with. All of it is the caller's to close."""

    database: Database
    settings: Settings
    versions: Versions
    lines: Lines
    webhooks: Webhooks
    watch: Watch


@dataclass(frozen=True)
class Work:
    """Runs that stand at steps of one kind."""

    scope: Scope
    now: datetime  # aware UTC, when the workflow asked
    clock: Clock  # the workflow's, going on
    visits: Sequence[StepVisit]
    steps: Mapping[str, StepModel]  # by id: all that the visits name

    def step(self, visit: StepVisit, kind: type[Kind]) -> Kind:
        found = self.steps[visit.step_id]
        assert isinstance(found, kind)  # the registry says so
        return found

    def answered(self, standings: Mapping[UUID, EffectRow], settlements: Sequence[Settlement]) -> Answers:
        """An answer for every visit: from what stood, from what was settled now, and of the rest the contact is no more."""
        answers = {run_id: done_before(standing) for run_id, standing in standings.items()}
        answers |= {one.claimed.run_id: done_now(one) for one in settlements}
        return {visit.run_id: answers.get(visit.run_id) or gone(visit.run_id) for visit in self.visits}

    def chunks(self, size: int) -> Iterator[Sequence[StepVisit]]:
        for first in range(0, len(self.visits), size):
            yield self.visits[first : first + size]


class NotNow(Exception):
    """Something was paused before this was begun, or nobody could say whether it was."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Lookout:
    """Looks at the pauses again, for what was claimed long before its turn comes. Made before the claiming, which looks itself. What it has
    seen once holds for all that was claimed together."""

    watch: Watch
    scope: Scope
    looked: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    paused: str | None = None

    async def check(self) -> None:
        """Raises NotNow; also while the database does not answer, so that what was done meanwhile is still settled."""
        if self.paused is None and asyncio.get_running_loop().time() - self.looked >= LOOK_EVERY:
            await self._look()
        if self.paused is not None:
            raise NotNow(self.paused)

    async def _look(self) -> None:
        try:
            seen = await self.watch.look(self.scope, None, self.looked, LOOK_EVERY / 2)
        except Exception as error:
            if fault_of(error) is not Fault.UNAVAILABLE:
                raise
            raise NotNow("database_unavailable") from error
        self.looked, self.paused = max(self.looked, seen.at), self.paused or seen.paused  # several look at once


class Effect(Protocol):
    """One kind of step. Built once per process; used by many batches at once."""

    async def perform(self, work: Work) -> Answers:
        """An answer for every visit. Safe to run twice, also at the same time; the docstring says what makes it so.

        What becomes of one run is its answer; only faults of the whole batch are raised.
        """
        ...


Build = Callable[[EffectTools], Effect]


def leaving() -> bool:
    """The worker goes away, or the activity is cancelled: nothing further is begun."""
    return activity.is_worker_shutdown() or activity.is_cancelled()


def halted() -> ApplicationError:
    """For what was not begun any more."""
    return ApplicationError("this attempt was halted; the next one goes on", type="Halted")


async def all_ended(work: Iterable[Coroutine[Any, Any, End]], patience: float | None) -> tuple[list[End], BaseException | None]:
    """The ends of all that ended well, in order, and the first fault; the caller raises it, once it has kept those ends.

    Cancelled meanwhile, they have `patience` seconds more (None: as long as they take) and are then cancelled too; the fault is that.
    """
    running = [asyncio.create_task(one) for one in work]
    if not running:
        return [], None
    fault: BaseException | None = None
    try:
        await asyncio.wait(running)
    except asyncio.CancelledError as cancelled:
        fault = cancelled
        await asyncio.wait(running, timeout=patience)
        for one in running:
            one.cancel()
    ended = await asyncio.gather(*running, return_exceptions=True)
    faults = (one for one in ended if isinstance(one, BaseException))
    return [one for one in ended if not isinstance(one, BaseException)], fault or next(faults, None)


def done_before(standing: EffectRow) -> StepAnswer:
    """The answer for an effect that is settled already, by another attempt or in an earlier asking."""
    return StepAnswer(
        run_id=standing.run_id,
        refused=standing.state == "refused",
        failed=standing.state in ("failed", "unknown"),
        reason=standing.reason,
        details=standing.details,
    )


def done_now(settlement: Settlement) -> StepAnswer:
    """The answer for an effect that this attempt has settled."""
    refused = settlement.state == "refused"
    run_id, details = settlement.claimed.run_id, dict(settlement.details)
    return StepAnswer(run_id=run_id, refused=refused, reason=settlement.reason, details=details)


def claims(visits: Sequence[StepVisit]) -> list[Visit]:
    """The visits as the ledger knows them."""
    return [Visit(each.run_id, each.contact_id, each.step_id, each.visit) for each in visits]


def ask_again(visit: StepVisit, reason: str, now: datetime, longest: timedelta = LONGEST_LOOK) -> StepAnswer:
    """Nothing may leave just now; asked again later, and ever more rarely. The signal that lifts a pause usually comes first."""
    wait = doubled(FIRST_LOOK, times_asked(visit.round), longest)
    return StepAnswer(run_id=visit.run_id, reason=reason, retry_at=shared_instant(now + wait))


def gone(run_id: UUID) -> StepAnswer:
    """The contact, and with it the run's row, is no more."""
    return StepAnswer(run_id=run_id, refused=True, reason=CONTACT_GONE)
