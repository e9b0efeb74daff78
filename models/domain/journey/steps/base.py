"""What all kinds of steps share. Pure.

A step is asked three things while a run goes through: what becomes of a run that arrives (`arrive`), what the world's answer to
its question means (`answered`), and what happens when a rest is over (`woke`). Each is answered by one of four outcomes:

    Ask      the run stands here until the world has answered the step's question
    Rest     the run does nothing until a moment, an event or a person
    Go       the run leaves for the next step (None: it completes)
    Leave    the run exits the journey here

All times are aware UTC.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.run import RunState

StepId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
Channel = Literal["email", "sms"]
Purpose = Literal["marketing", "transactional"]
Name = Annotated[str, Field(max_length=200)]
VariableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
EventName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]

LONGEST = timedelta(days=366)
QUESTIONS = ("choose_branches", "plan_waits", "open_waits", "close_waits", "perform_steps")  # activities that answer for steps


class Model(BaseModel):
    """Frozen; unknown fields are refused when read from a designer, see `check`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Answer:
    """What the world said to a step's question. Which fields count depends on the question.

    `index`: of the way taken. `until`: when to wake. `refused`: it was not done, because of `reason`; the run goes on.
    `details`: ids and codes for the timeline.
    """

    index: int | None = None
    until: datetime | None = None
    refused: bool = False
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """`kind` is what the timeline says of it, None: nothing yet."""


@dataclass(frozen=True)
class Rest:
    """Until `until`; None: for as long as nobody speaks. `kind` is what the timeline calls it."""

    until: datetime | None
    kind: str = "waiting"
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Go:
    """`kind` is what the timeline says of it, None: nothing."""

    next: str | None
    kind: str | None = None
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Leave:
    reason: str
    kind: str | None = None  # said before the exit itself
    details: dict[str, Any] = field(default_factory=dict)


Outcome = Ask | Rest | Go | Leave
Exits = Iterator[tuple[str, str | None]]


class StepModel(Model):
    """A step that asks its question, if it has one, and goes on to `next`."""

    question: ClassVar[str | None] = None  # one of QUESTIONS; sends have checks of their own
    waits: ClassVar[bool] = False  # a run may rest here
    slow: ClassVar[bool] = False  # its question speaks to others' servers: it must not keep checks and records waiting

    says: ClassVar[frozenset[str]] = frozenset()  # what the timeline tells of it alone; `models.domain.simulation.possible` has the rest
    opaque: ClassVar[frozenset[str]] = frozenset()  # fields that may hold anything, and name nothing of the organization's

    kind: str
    name: Name = ""

    def exits(self) -> Exits:
        """Each way out: the field that names it, and the step named (None: the run completes)."""
        yield from ()

    def instant_exits(self) -> Exits:
        """The ways out that a run may take without any time passing."""
        yield from () if self.waits else self.exits()

    def leads_into(self) -> UUID | None:
        """Another journey that whoever comes here is to enter."""
        return None

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        """What keeps the step from being published, each with its path."""
        yield from ()

    def liquid(self) -> Iterator[str]:
        """Every text in it that is a template."""
        yield from ()

    def frozen(self, facts: Facts) -> Self:
        """With everything named that may change later. The step has no problems with the same facts."""
        return self

    def arrive(self, state: RunState, now: datetime) -> Outcome:
        return Ask()

    def asks(self, state: RunState) -> str:
        """The question of a run that stands here active."""
        assert self.question is not None
        return self.question

    def answered(self, state: RunState, answer: Answer, now: datetime) -> Outcome:
        raise AssertionError(f"a {self.kind} step asks nothing")

    def woke(self, state: RunState, now: datetime) -> Outcome:
        raise AssertionError(f"a run never rests at a {self.kind} step")

    def skipped(self) -> str | None:
        """Where a run goes that leaves this step undone."""
        return next((target for _, target in self.exits()), None)


def fraction(*parts: str | UUID | int) -> float:
    """A number in [0, 1), always the same for the same parts, and evenly spread over different ones."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def duration_problems(path: str, duration: timedelta, what: str) -> Iterator[Problem]:
    if duration <= timedelta(0):
        yield Problem(path, "not_positive", f"{what} lasts longer than nothing; remove it if it need not.")
    elif duration > LONGEST:
        yield Problem(path, "too_long", f"{what} lasts at most {LONGEST.days} days.")
