"""The explicit, serializable state of one run, and what can happen to it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from pydantic import ConfigDict


class Phase(StrEnum):
    """Where a run stands. Conservation: entered = the sum over these."""

    ACTIVE = "active"
    WAITING = "waiting"
    HELD = "held"
    PAUSED = "paused"
    NEEDS_ATTENTION = "needs_attention"
    COMPLETED = "completed"
    EXITED = "exited"
    CANCELLED = "cancelled"


ANY_STEP = ""  # in a run's visits: how often the step has been visited that was visited most; no step is called that
FINISHED = frozenset({Phase.COMPLETED, Phase.EXITED, Phase.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """All that a run is between two commands. Carried over continue-as-new; evolves by additions with defaults only.

    A slotted dataclass, which pydantic reads and writes as it does its models: a worker keeps one for every waiting run, and a model
    of so many fields weighs ten times as much.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    run_id: UUID
    contact_id: UUID
    step_id: str | None  # None once finished
    phase: Phase = Phase.ACTIVE
    visit: int = 1  # of step_id: 1 at the first arrival
    visits: Mapping[str, int] = field(default_factory=dict)  # how often each step that lies on a loop has been arrived at
    round: int = 0  # how often this visit has asked for a decision
    wake_at: datetime | None = None  # aware UTC, while waiting or held
    asks_from: datetime | None = None  # aware UTC: from when the end of its wait is asked anew; the old end stands until the answer
    reason: str | None = None
    sequence: int = 0  # of the last transition recorded
    variables: Mapping[str, Any] = field(default_factory=dict)
    paused: bool = False  # by an operator; the phase underneath is kept, and time goes on
    starts_at: datetime | None = None  # aware UTC: it enters now, but comes to its first step only then
    arrived_at: datetime | None = None  # aware UTC, at a step where time passes
    approved: bool | None = None  # what a review has decided, while a pause keeps it from going on
    expired: bool = False  # the time of a wait for events is over: it asks which way it ended
    moved: bool = False  # it has just come from another version, and has not arrived at step_id yet
    moves: int = 0  # how often it has come from another version: questions asked before do not count
    leaving: str | None = None  # a rule of the journey ends it as soon as nothing is in flight; the reason
    skips: tuple[str, ...] = ()  # steps that it leaves undone when it comes to them next
    visits_before: int = 0  # the most visits of any step before the last jump: later ones are counted on from there
    not_before: datetime | None = None  # aware UTC: a resumption was spread, and this is its moment
    jumped_by: UUID | None = None  # the word that its last jump obeyed: said again, it does nothing, whichever workflow hears it
