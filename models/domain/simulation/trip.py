"""What all trips of a simulation share, and what became of one contact. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from models.domain.decision import Decision
from models.domain.journey.definition import Definition
from models.domain.journey.interpreter import Change
from models.domain.journey.run import RunState
from models.domain.simulation.scenario import Happening, World
from models.domain.simulation.surroundings import Message, Printer, Surroundings

MAX_COMMANDS = 2_000  # of one trip: a journey that goes on without end is cut off there


def go_on() -> None:
    """However long it takes."""


@dataclass(frozen=True)
class Plan:
    """What all trips of a simulation share. Times are aware UTC; nothing is looked at after `until`. `heed` is called at every step of
    every trip: what it raises ends the simulation."""

    definition: Definition
    surroundings: Surroundings
    printer: Printer
    world: World
    script: Sequence[tuple[datetime, Happening]]
    start: datetime
    until: datetime
    max_commands: int = MAX_COMMANDS
    heed: Callable[[], None] = go_on


@dataclass(frozen=True)
class Line:
    """One change of the run, dated."""

    at: datetime
    change: Change


@dataclass(frozen=True)
class Judged:
    """One decision about a message."""

    at: datetime
    check: str
    step_id: str
    visit: int
    round: int
    decision: Decision


@dataclass(frozen=True)
class Sent:
    """One message that was handed to the provider. `outcome`: what it said."""

    at: datetime
    step_id: str
    visit: int
    channel: str
    recipient: str
    message: Message
    outcome: str = "accepted"

    @property
    def left(self) -> bool:
        """Whether it was sent, or may have been; what the provider refused or never took was certainly not."""
        return self.outcome in ("accepted", "unknown")


@dataclass
class Trip:
    """What became of one contact. `cut`: it went on for so long that nothing more was looked at."""

    contact_id: UUID
    state: RunState
    ended_at: datetime
    lines: list[Line] = field(default_factory=list)
    decisions: list[Judged] = field(default_factory=list)
    messages: list[Sent] = field(default_factory=list)
    wakes: list[datetime] = field(default_factory=list)
    goals: dict[str, datetime] = field(default_factory=dict)
    assumed: set[str] = field(default_factory=set)  # steps whose webhook was taken to answer 200
    commands: int = 0
    cut: bool = False
    refused: str | None = None  # why the contact does not enter

    @property
    def status(self) -> str:
        return "not_entered" if self.refused else str(self.state.phase)

    @property
    def reason(self) -> str | None:
        return self.refused or self.state.reason
