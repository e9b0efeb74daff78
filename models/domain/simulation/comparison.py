"""How what a journey does for a case differs from what the case expects. Pure."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

from models.domain.journey.definition import Definition
from models.domain.simulation.case import Case, Difference, ExpectedEnd, ExpectedMessage, ExpectedStep
from models.domain.simulation.possible import impossible, unfitting
from models.domain.simulation.trip import Line, Sent, Trip

SHOWN = 200  # characters of a text in a difference


def differences(case: Case, definition: Definition, trip: Trip) -> list[Difference]:
    """How the trip differs from what the case expects; empty when it does not. What cannot be, or not in this version, comes first."""
    expected = case.expected
    found = [Difference(one.path, one.code, one.message) for one in (*impossible(case), *unfitting(case, definition))]
    if expected.path is not None:
        found += _in_path(expected.path, trip.lines)
    if expected.messages is not None:
        found += _in_messages(expected.messages, trip.messages)
    if expected.end is not None:
        found += _in_end(expected.end, trip)
    return found


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
