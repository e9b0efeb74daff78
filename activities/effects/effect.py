"""What every implementation of a step kind gets and gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from activities.clock import Clock
from activities.contracts import Scope, StepAnswer, StepVisit
from activities.lines import ProviderSource
from activities.versions import Versions
from models.domain.journey.steps.base import StepModel
from models.settings import Settings
from models.store.effects import Standing
from models.store.session import Database

Kind = TypeVar("Kind", bound=StepModel)
CONTACT_GONE = "contact_gone"


@dataclass(frozen=True)
class Tools:
    """What the effects of a process work with. All of it is the caller's to close."""

    database: Database
    settings: Settings
    versions: Versions
    providers: ProviderSource


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

    def chunks(self, size: int) -> Iterator[Sequence[StepVisit]]:
        for first in range(0, len(self.visits), size):
            yield self.visits[first : first + size]


Answers = dict[UUID, StepAnswer]  # by run


class Effect(Protocol):
    """One kind of step. Built once per process; used by many batches at once."""

    async def perform(self, work: Work) -> Answers:
        """An answer for every visit. Safe to run twice, also at the same time; the docstring says what makes it so.

        What becomes of one run is its answer; only faults of the whole batch are raised.
        """
        ...


Build = Callable[[Tools], Effect]


def done_before(standing: Standing) -> StepAnswer:
    """The answer for an effect that is settled already, by another attempt or in an earlier asking."""
    return StepAnswer(
        run_id=standing.run_id,
        refused=standing.state == "refused",
        failed=standing.state in ("failed", "unknown"),
        reason=standing.reason,
        details=standing.details,
    )


def gone(run_id: UUID) -> StepAnswer:
    """The contact, and with it the run's row, is no more."""
    return StepAnswer(run_id=run_id, refused=True, reason=CONTACT_GONE)
