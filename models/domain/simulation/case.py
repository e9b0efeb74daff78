"""Cases: what a journey is expected to do for one invented contact. Pure."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from models.domain.journey.steps.base import Model
from models.domain.simulation.scenario import USUAL, Given, Moment, Offset, Script
from models.domain.simulation.trip import Line, Sent, Trip

MAX_CASES = 100  # of one journey: they all run on every publish
MAX_LINES = 1_000
MAX_TEXT = 200_000

CaseName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Word = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]


class ExpectedStep(Model):
    """One line of the path. `step`, `reason`, `at` and `until` count only where they are given; null: there is none."""

    kind: Word
    step: Word | None = None
    reason: Word | None = None
    at: AwareDatetime | None = None
    until: AwareDatetime | None = None


class ExpectedMessage(Model):
    """One message. What is left out may be anything."""

    step: Word
    at: AwareDatetime | None = None
    subject: Text | None = None
    text: Text | None = None
    html: Text | None = None


class ExpectedEnd(Model):
    """How the run stands at the end: completed, exited, waiting, … `reason` counts only where it is given."""

    phase: Word
    reason: Word | None = None


class Expected(Model):
    """What is left out may be anything; at least one of them is said."""

    path: Annotated[tuple[ExpectedStep, ...], Field(max_length=MAX_LINES)] | None = None
    messages: Annotated[tuple[ExpectedMessage, ...], Field(max_length=MAX_LINES)] | None = None
    end: ExpectedEnd | None = None

    @model_validator(mode="after")
    def _something(self) -> "Expected":
        if self.path is None and self.messages is None and self.end is None:
            raise ValueError("Expect a path, messages or an end.")
        return self


class Case(Model):
    """`start` is fixed, so that it runs the same whenever it runs. Nothing is looked at later than `until` after it."""

    name: CaseName
    start: Moment
    until: Offset = USUAL
    given: Given = Given()
    script: Script = ()
    expected: Expected


@dataclass(frozen=True)
class Difference:
    """`where`: in the case's own words, such as path[2] or messages[0].subject."""

    where: str
    code: str
    message: str
    expected: Any = None
    got: Any = None


def expected_of(trip: Trip) -> Expected:
    """What the trip did, in the form of a case's expectation; without its path, or its messages, where a case could not hold so many."""
    return Expected(
        path=None if len(trip.lines) > MAX_LINES else tuple(_step(line) for line in trip.lines),
        messages=None if len(trip.messages) > MAX_LINES else tuple(_message(sent) for sent in trip.messages),
        end=ExpectedEnd(phase=trip.status, reason=trip.reason),
    )


def _step(line: Line) -> ExpectedStep:
    change = line.change
    given: dict[str, Any] = {"kind": change.kind, "step": change.step_id, "at": line.at}
    given |= {"reason": change.reason} if change.reason is not None else {}
    given |= {"until": change.wake_at} if change.wake_at is not None else {}
    return ExpectedStep(**given)


def _message(sent: Sent) -> ExpectedMessage:
    message = sent.message
    given = {"step": sent.step_id, "at": sent.at, "subject": message.subject, "text": message.text, "html": message.html}
    return ExpectedMessage(**{name: value for name, value in given.items() if value != ""})
