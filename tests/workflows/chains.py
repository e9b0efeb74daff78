"""What a replay begins with and finds done, told from the lines of the runs whose place it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from models.domain.journey.definition import Definition
from models.domain.journey.interpreter import STEP_CANCELLED
from models.domain.journey.replay import Act, Arrival, Begun, Deed, Past, Place, Remark, Trip, begin_at, met
from models.domain.journey.run import RunState

DONE = {"sent": "send", "called_webhook": "call_webhook", "contact_updated": "update_contact"}  # the kinds of steps that say so
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Told:
    """One line of a run's record."""

    kind: str
    step_id: str | None
    visit: int | None
    reason: str | None = None
    to: str | None = None


@dataclass(frozen=True)
class Begin:
    """How a run begins. `done`: what is not to be repeated."""

    run: UUID
    contact: UUID
    version: UUID
    step_id: str
    begun: Begun = field(default_factory=Begun)
    done: Mapping[Act, Past] = field(default_factory=dict)

    @property
    def state(self) -> RunState:
        return RunState(
            run_id=self.run,
            contact_id=self.contact,
            step_id=self.step_id,
            visits=dict(self.begun.visits),
            visits_before=self.begun.visits_before,
            skips=self.begun.skips,
        )

    def keeps(self, definition: Definition, step_id: str, visit: int) -> bool:
        return met(self.done, definition.steps[step_id].kind, step_id, visit, step_id in definition.looping) is not None


Chain = Sequence[tuple[Begin, Sequence[Told]]]  # of runs, the newest first


def replay(run: UUID, definition: Definition, version: UUID, step_id: str, chain: Chain) -> Begin:
    trips = [_trip(begin, told) for begin, told in chain]
    done = {
        (DONE[line.kind], line.step_id, line.visit): Past(begin.run, Deed.DONE, LONG_AGO)
        for begin, told in chain
        for line in told
        if line.kind in DONE and line.step_id is not None and line.visit is not None
    }
    return Begin(run, chain[0][0].contact, version, step_id, begin_at(trips, step_id, definition.looping), done)


def _trip(begin: Begin, told: Sequence[Told]) -> Trip:
    first: dict[Place, int] = {}
    remarks = []
    for number, line in enumerate(told, 1):
        if line.step_id is not None and line.visit is not None:
            first.setdefault((line.step_id, line.visit), number)
        if line.kind in ("jumped", "step_cancelled", "step_restored") or (line.kind == "skipped" and line.reason == STEP_CANCELLED):
            remarks.append(Remark(line.kind, number, line.to or line.step_id or ""))
    return Trip(begin.run, begin.begun, [Arrival(step, visit, number) for (step, visit), number in first.items()], remarks)
