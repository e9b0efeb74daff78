"""Rules judged in memory, as `models.store.segment_sql` has the database judge them. Pure.

A test draws rules and contacts and holds the two against each other (tests/models/store/test_segment_memory.py). A rule is made into
nested functions once (`compile_rule`, remembered by its text) and then asked about many contacts, at many moments.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID

from models.domain.errors import Invalid
from models.domain.segment import (
    MOMENT_FIELDS,
    NEGATIONS,
    AnyRule,
    ConsentQuestion,
    ConsentRule,
    Either,
    EventQuestion,
    EventRule,
    Every,
    FieldRule,
    Negation,
    SegmentRule,
    TagRule,
    parse_rule,
    run_reference,
)
from models.domain.segment_values import EARLIEST, LATEST, is_number, parse_moment, resolve_moment, shift

_MONTHS = re.compile(r"^P[^T]*[YM]")  # a duration of the calendar's years or months


@dataclass(frozen=True)
class Happened:
    """One event of the contact. `number`: the order of acceptance; `accepted_at` and `occurred_at` are aware UTC."""

    number: int
    name: str
    accepted_at: datetime
    occurred_at: datetime
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A contact (and its run) as rules see it. `consents`: the newest line of the ledger, by topic and channel. `began`: whether an
    event counts as since the run's entry."""

    fields: Mapping[str, Any]  # the columns, created_at and updated_at (aware UTC) included
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    consents: Mapping[tuple[UUID, str], str] = field(default_factory=dict)
    topics: Mapping[str, UUID] = field(default_factory=dict)  # by key
    events: Sequence[Happened] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    began: Callable[[Happened], bool] = lambda event: True
    event: Happened | None = None


Test = Callable[[Subject, datetime], bool]


def holds(rule: Mapping[str, Any], subject: Subject, now: datetime) -> bool:
    """Whether the rule is true for the subject at `now` (aware), from which relative moments are counted.

    Raises:
        Invalid: the rule is malformed, or names a segment.
    """
    return _compiled(_text(rule))(subject, now)


def turns(rule: Mapping[str, Any], subject: Subject) -> set[datetime]:
    """Every moment at which the passing of time alone may make the rule true or false, as long as the subject stays as it is."""
    return set(_turns(_parsed(_text(rule)), subject))


def events_asked(rule: Mapping[str, Any]) -> set[str]:
    """The names of events about whose past the rule asks."""
    return {question.name for question in _questions(_parsed(_text(rule)))}


def _text(rule: Mapping[str, Any]) -> str:
    return json.dumps(rule, sort_keys=True, default=str)


@lru_cache(maxsize=4_096)
def _parsed(text: str) -> AnyRule:
    return parse_rule(json.loads(text))


@lru_cache(maxsize=4_096)
def _compiled(text: str) -> Test:
    return _compile(_parsed(text))


def _compile(rule: AnyRule) -> Test:
    match rule:
        case Every(all=parts):
            every = [_compile(part) for part in parts]
            return lambda subject, now: all(test(subject, now) for test in every)
        case Either(any=parts):
            either = [_compile(part) for part in parts]
            return lambda subject, now: any(test(subject, now) for test in either)
        case Negation(rule=part):
            inner = _compile(part)
            return lambda subject, now: not inner(subject, now)
        case TagRule(tag=tag):
            return lambda subject, now: tag in subject.tags
        case ConsentRule(consent=question):
            return _consent(question)
        case EventRule(event=happened):
            return _happened(happened)
        case SegmentRule():
            raise Invalid.field("rule.segment", "no_segments", "Publishing puts a segment's rule in its place; here there is none.")
        case FieldRule(operator=operator) if operator in NEGATIONS:
            positive = _field(rule, NEGATIONS[operator])
            return lambda subject, now: not positive(subject, now)
        case FieldRule(operator=operator):
            return _field(rule, operator)


def _consent(question: ConsentQuestion) -> Test:
    def test(subject: Subject, now: datetime) -> bool:
        topic = question.topic_id or subject.topics.get(question.topic or "")
        status = "none" if topic is None else subject.consents.get((topic, question.channel), "none")
        return status == question.status

    return test


def _happened(question: EventQuestion) -> Test:
    where = None if question.where is None else _compile(question.where)

    def counts(event: Happened, subject: Subject, now: datetime, earliest: datetime | None) -> bool:
        if event.name != question.name:
            return False
        if earliest is not None and not earliest <= event.occurred_at <= now:
            return False
        if question.since is not None and not subject.began(event):
            return False
        return where is None or where(replace(subject, event=event), now)

    def test(subject: Subject, now: datetime) -> bool:
        found, earliest = 0, None if question.within is None else shift(now, question.within, -1)
        for event in reversed(subject.events):  # the newest are the likeliest
            found += counts(event, subject, now, earliest)
            if found >= question.at_least:
                return True
        return False

    return test


def _field(rule: FieldRule, operator: str) -> Test:
    namespace, _, key = rule.field.partition(".")
    if not key and namespace in MOMENT_FIELDS:
        return _on_moment(lambda subject: subject.fields.get(namespace), operator, rule.value)
    if not key:
        return _on_column(namespace, operator, rule.value)
    read = _reader(namespace, key)
    if (variable := run_reference(rule.value)) is not None:
        return lambda subject, now: (found := read(subject)) is not None and _same(found, _member(subject.variables, variable))
    return _on_json(read, operator, rule.value)


# --- Columns --------------------------------------------------------------------------------------------------------


def _on_column(name: str, operator: str, value: Any) -> Test:
    fold = _FOLDS.get(name)
    if operator == "exists":
        return lambda subject, now: subject.fields.get(name) is not None
    if operator in ("equals", "in"):
        wanted = {fold(each) if fold else each for each in (value if operator == "in" else [value])}
        if fold is None:
            return lambda subject, now: subject.fields.get(name) in wanted
        return lambda subject, now: (found := subject.fields.get(name)) is not None and fold(found) in wanted
    test = _on_text(operator, value)
    return lambda subject, now: (found := subject.fields.get(name)) is not None and test(found)


# As the indexes of contacts fold them; a country is stored in upper case.
_FOLDS: Mapping[str, Callable[[str], str]] = {"email": str.lower, "locale": str.lower, "country": str.upper}


def _on_text(operator: str, value: str) -> Callable[[str], bool]:
    wanted = value.lower()
    match operator:
        case "contains":
            return lambda text: wanted in text.lower()
        case "starts_with":
            return lambda text: text.lower().startswith(wanted)
        case _:
            return lambda text: text.lower().endswith(wanted)


# --- JSON: attributes, variables, properties ------------------------------------------------------------------------


class _Nothing:
    """There is no such key: other than null, which is a JSON value."""


_NOTHING = _Nothing()
Read = Callable[[Subject], Any]


def _reader(namespace: str, key: str) -> Read:
    match namespace:
        case "attributes":
            return lambda subject: _member(subject.attributes, key)
        case "run":
            return lambda subject: _member(subject.variables, key)
        case _:
            return lambda subject: _NOTHING if subject.event is None else _member(subject.event.properties, key)


def _member(document: Mapping[str, Any], key: str) -> Any:
    return document.get(key, _NOTHING)


def _on_json(read: Read, operator: str, value: Any) -> Test:
    match operator:
        case "exists":
            return lambda subject, now: (found := read(subject)) is not None and found is not _NOTHING
        case "equals":
            return lambda subject, now: _same(read(subject), value)
        case "in":
            return lambda subject, now: any(_same(found, each) for found in [read(subject)] for each in value)
        case "contains":
            text = _on_text(operator, value)
            return lambda subject, now: _contains(read(subject), value, text)
        case "starts_with" | "ends_with":
            text = _on_text(operator, value)
            return lambda subject, now: isinstance(found := read(subject), str) and text(found)
        case "greater" | "less" | "at_least" | "at_most":
            return lambda subject, now: is_number(found := read(subject)) and _compare(operator, found, value)
    return _on_moment(lambda subject: _moment(read(subject)), operator, value)


def _contains(found: Any, value: str, text: Callable[[str], bool]) -> bool:
    if isinstance(found, list | tuple):
        return any(isinstance(each, str) and each == value for each in found)
    return isinstance(found, str) and text(found)


def _same(one: Any, other: Any) -> bool:
    """As jsonb compares: 1 is 1.0, and true is not 1. What is not there is equal to nothing."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    match one, other:
        case Mapping(), Mapping():
            return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
        case ((list() | tuple()), (list() | tuple())):
            return len(one) == len(other) and all(map(_same, one, other))
    return one is not _NOTHING and other is not _NOTHING and bool(one == other)


def _compare(operator: str, found: Any, bound: Any) -> bool:
    match operator:
        case "greater" | "after":
            return bool(found > bound)
        case "less" | "before":
            return bool(found < bound)
        case "at_least":
            return bool(found >= bound)
        case _:
            return bool(found <= bound)


def _moment(value: Any) -> datetime | None:
    return parse_moment(value) if isinstance(value, str) else None


# --- Moments --------------------------------------------------------------------------------------------------------


def _on_moment(read: Callable[[Subject], datetime | None], operator: str, value: Any) -> Test:
    if operator == "exists":
        return lambda subject, now: read(subject) is not None
    if operator in ("before", "after"):
        return lambda subject, now: (found := read(subject)) is not None and _compare(operator, found, resolve_moment(value, now))
    if operator == "within_last":
        return lambda subject, now: (found := read(subject)) is not None and shift(now, value, -1) <= found <= now
    return lambda subject, now: (found := read(subject)) is not None and now <= found <= shift(now, value, 1)


TICK = timedelta(microseconds=1)  # just after the last moment at which a rule about it held
MARGIN = timedelta(days=4)  # from the calendar's ends, where nothing can be added any more


def _turns(rule: AnyRule, subject: Subject) -> Iterator[datetime]:
    """Every moment at which a part of the rule may turn by the passing of time."""
    match rule:
        case Every(all=parts) | Either(any=parts):
            for part in parts:
                yield from _turns(part, subject)
        case Negation(rule=part):
            yield from _turns(part, subject)
        case EventRule(event=question):
            for event in subject.events:
                if event.name == question.name:
                    if question.within is not None:
                        yield from _ends(event.occurred_at, question.within, 1)
                    if question.where is not None:
                        yield from _turns(question.where, replace(subject, event=event))
        case FieldRule():
            yield from _field_turns(rule, subject)


def _field_turns(rule: FieldRule, subject: Subject) -> Iterator[datetime]:
    namespace, _, key = rule.field.partition(".")
    found = _moment(_reader(namespace, key)(subject)) if key else subject.fields.get(namespace)
    if not isinstance(found, datetime):
        return
    match rule.operator, rule.value:
        case (("within_last" | "not_within_last"), str(duration)):
            yield from _ends(found, duration, 1)
        case "within_next", str(duration):
            yield from _ends(found, duration, -1)
        case (("before" | "after"), {"ago": str(duration)}):
            yield from _ends(found, duration, 1)
        case (("before" | "after"), {"ahead": str(duration)}):
            yield from _ends(found, duration, -1)


def _ends(moment: datetime, duration: str, direction: Literal[1, -1]) -> Iterator[datetime]:
    """The moment itself and where the duration leads from there, and just after each."""
    end = shift(moment, duration, direction)
    inside = [each for each in (moment, end) if EARLIEST + MARGIN < each < LATEST - MARGIN]
    for turn in (*inside, *(_days_around(end) if _MONTHS.search(duration) and end in inside else ())):
        yield turn
        yield turn + TICK


def _days_around(end: datetime) -> Iterator[datetime]:
    """Months do not lead back where they came from: a month before each of the last days of March is the last day of February. What
    is lost or won is whole days, at the moment's time of day or at midnight."""
    for days in range(-3, 4):
        day = end + timedelta(days=days)
        yield day
        yield day.replace(hour=0, minute=0, second=0, microsecond=0)


def _questions(rule: AnyRule) -> Iterator[EventQuestion]:
    match rule:
        case Every(all=parts) | Either(any=parts):
            for part in parts:
                yield from _questions(part)
        case Negation(rule=part):
            yield from _questions(part)
        case EventRule(event=question):
            yield question
            if question.where is not None:
                yield from _questions(question.where)
