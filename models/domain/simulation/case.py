"""Cases: what a journey is expected to do for one invented contact, and how what it does differs. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, model_validator

from models.domain.journey.definition import Definition
from models.domain.journey.steps.base import Model
from models.domain.simulation.scenario import USUAL, Given, Moment, Offset, Script
from models.domain.simulation.trip import Line, Sent, Trip

MAX_CASES = 100  # of one journey: they all run on every publish
MAX_LINES = 1_000
MAX_TEXT = 200_000
SHOWN = 200  # characters of a text in a difference

CaseName = Annotated[str, Field(min_length=1, max_length=200)]
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
    """What the trip did, in the form of a case's expectation."""
    return Expected(
        path=tuple(_step(line) for line in trip.lines),
        messages=tuple(_message(sent) for sent in trip.messages),
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


def differences(case: Case, definition: Definition, trip: Trip) -> list[Difference]:
    """How the trip differs from what the case expects; empty when it does not."""
    expected = case.expected
    found = [*_lost_steps(case, definition)]
    if expected.path is not None:
        found += _in_path(expected.path, trip.lines)
    if expected.messages is not None:
        found += _in_messages(expected.messages, trip.messages)
    if expected.end is not None:
        found += _in_end(expected.end, trip)
    return found


def _lost_steps(case: Case, definition: Definition) -> Iterator[Difference]:
    """A case that names what the journey has no more must be looked at, even where the rest still fits."""
    named = [(f"path[{index}]", one.step) for index, one in enumerate(case.expected.path or ())]
    named += [(f"messages[{index}]", one.step) for index, one in enumerate(case.expected.messages or ())]
    named += [(f"given.{field}", step_id) for field in ("webhooks", "sends") for step_id in getattr(case.given, field)]
    said: set[str] = set()
    for where, step_id in named:
        if step_id is not None and step_id not in definition.steps and step_id not in said:
            said.add(step_id)
            yield Difference(where, "unknown_step", f"The journey has no step {step_id!r} any more; change the case.", step_id)


# --- The path -----------------------------------------------------------------------------------------------------------


def _in_path(expected: Sequence[ExpectedStep], lines: Sequence[Line]) -> Iterator[Difference]:
    """Laid beside each other, so that one line too many is one difference. Of a run of lines that differ, each is told."""
    by_step = all("step" in one.model_fields_set for one in expected)
    wanted = [(one.kind, one.step if by_step else None) for one in expected]
    got = [(line.change.kind, line.change.step_id if by_step else None) for line in lines]
    for tag, first, last, other, end in SequenceMatcher(None, wanted, got, autojunk=False).get_opcodes():
        if tag == "equal":
            for index, line in zip(range(first, last), lines[other:end], strict=True):
                yield from _in_line(f"path[{index}]", expected[index], line)
            continue
        for offset in range(max(last - first, end - other)):
            index, number = first + offset, other + offset
            one = expected[index] if index < last else None
            yield _other_line(f"path[{min(index, last)}]", one, lines[number] if number < end else None)


def _in_line(where: str, expected: ExpectedStep, line: Line) -> Iterator[Difference]:
    got = {"reason": line.change.reason, "at": line.at, "until": line.change.wake_at, "step": line.change.step_id}
    for name in ("step", "reason", "at", "until"):
        if name in expected.model_fields_set and getattr(expected, name) != got[name]:
            yield _other(f"{where}.{name}", getattr(expected, name), got[name])


def _other_line(where: str, expected: ExpectedStep | None, line: Line | None) -> Difference:
    wanted = None if expected is None else _words(expected.kind, expected.step, expected.reason)
    got = None if line is None else _words(line.change.kind, line.change.step_id, line.change.reason)
    if wanted is None:
        return Difference(where, "unexpected", f"Nothing was expected here, but {got} happened.", None, got)
    if got is None:
        return Difference(where, "missing", f"Expected {wanted}, but it did not happen.", wanted, None)
    return Difference(where, "different", f"Expected {wanted}, got {got}.", wanted, got)


def _words(kind: str, step_id: str | None, reason: str | None) -> str:
    return f"{kind}{f' at {step_id}' if step_id else ''}{f' ({reason})' if reason else ''}"


# --- Messages and the end -----------------------------------------------------------------------------------------------


def _in_messages(expected: Sequence[ExpectedMessage], messages: Sequence[Sent]) -> Iterator[Difference]:
    wanted, got = [one.step for one in expected], [sent.step_id for sent in messages]
    for tag, first, last, other, end in SequenceMatcher(None, wanted, got, autojunk=False).get_opcodes():
        if tag == "equal":
            for index, sent in zip(range(first, last), messages[other:end], strict=True):
                yield from _in_message(f"messages[{index}]", expected[index], sent)
            continue
        for index in range(first, last):
            yield Difference(
                f"messages[{index}]", "missing", f"Expected a message of {wanted[index]}, but none was sent.", wanted[index], None
            )
        for sent in messages[other:end]:
            yield Difference(
                f"messages[{last}]", "unexpected", f"No message was expected here, but {sent.step_id} sent one.", None, sent.step_id
            )


def _in_message(where: str, expected: ExpectedMessage, sent: Sent) -> Iterator[Difference]:
    got = {"at": sent.at, "subject": sent.message.subject, "text": sent.message.text, "html": sent.message.html}
    for name in ("at", "subject", "text", "html"):
        wanted = getattr(expected, name)
        if wanted is not None and wanted != got[name]:
            yield _other(f"{where}.{name}", wanted, got[name])


def _in_end(expected: ExpectedEnd, trip: Trip) -> Iterator[Difference]:
    if expected.phase != trip.status:
        yield _other("end.phase", expected.phase, trip.status)
    if "reason" in expected.model_fields_set and expected.reason != trip.reason:
        yield _other("end.reason", expected.reason, trip.reason)


def _other(where: str, expected: Any, got: Any) -> Difference:
    return Difference(where, "different", f"Expected {_shown(expected)}, got {_shown(got)}.", _plain(expected), _plain(got))


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = str(_plain(value))
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
