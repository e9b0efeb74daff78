"""What every simulated kind of step gets and gives. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from models.domain.journey.steps.base import Answer
from models.domain.simulation.person import Person
from models.domain.simulation.surroundings import Printer, Surroundings


@dataclass
class Scene:
    """A run that stands at a step which does something. `variables` are the run's, changed in place, as the person is; `touched`: whether
    the contact changed, so that rules look at it again. `reply`: the next answer of another system, its status and JSON; `tries`: how
    often this visit has asked, this time included. Times are aware UTC."""

    person: Person
    variables: dict[str, Any]
    now: datetime
    began: datetime
    surroundings: Surroundings
    printer: Printer
    reply: Callable[[], tuple[int, Any]]
    tries: int
    touched: bool = False


@dataclass(frozen=True)
class Heard:
    """What an activity would answer. `failed`: a person decides; `retry_at`: it is asked again then."""

    answer: Answer
    failed: bool = False
    retry_at: datetime | None = None


Effect = Callable[[Any, Scene], Heard]  # of the kind's step


def refused(reason: str) -> Heard:
    """It is not done, and the run goes on."""
    return Heard(Answer(refused=True, reason=reason))
