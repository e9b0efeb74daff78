"""Simulations in few words."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.definition import Definition, SendStep
from models.domain.journey.facts import TopicFact
from models.domain.simulation.case import MAX_LINES, Case, expected_of
from models.domain.simulation.person import Person
from models.domain.simulation.possible import impossible, unfitting
from models.domain.simulation.scenario import Happening, World, in_order
from models.domain.simulation.simulate import run_of
from models.domain.simulation.surroundings import Message, Surroundings
from models.domain.simulation.travel import travel
from models.domain.simulation.trip import Plan, Trip
from models.domain.template import Unsendable

START = datetime(2026, 3, 2, 9, tzinfo=UTC)  # a Monday
TOPIC, OTHER, TEMPLATE = uuid4(), uuid4(), uuid4()
SEND: dict[str, Any] = {"kind": "send", "template_id": str(TEMPLATE), "template_version_id": str(TEMPLATE), "topic_id": str(TOPIC)}


class Plain:
    """Prints a name, which must be there."""

    def message(self, step: SendStep, template: TemplateContent | None, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Message:
        if contact.get("first_name") is None:
            raise Unsendable("missing_value:contact.first_name")
        return Message(f"Hello {contact['first_name']}", "", f"{run.get('order', '')}")

    def mail(self, subject: str, text: str, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Message:
        return Message(subject, "", text)

    def json(self, value: Any, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Any:
        return value


def person(agreed: bool = True, **fields: Any) -> Person:
    columns = {"email": "ann@example.com", "first_name": "Ann", "timezone": "UTC", "created_at": START, "updated_at": START, **fields}
    found = Person(uuid4(), columns)
    if agreed:
        found.say(TOPIC, "email", "granted", START - timedelta(days=9))
    return found


def surroundings(**fields: Any) -> Surroundings:
    topics = {TOPIC: TopicFact("news"), OTHER: TopicFact("old", archived=True)}
    return Surroundings(**{"topics": topics, "attributes": {"plan": {"type": "string"}, "due": {"type": "date"}}, **fields})


def trip(
    steps: Mapping[str, Any],
    *script: Mapping[str, Any],
    who: Person | None = None,
    world: Mapping[str, Any] | None = None,
    around: Surroundings | None = None,
    until: timedelta = timedelta(days=366),
    max_commands: int = 2_000,
    **rules: Any,
) -> Trip:
    """Through these steps, from the first."""
    definition = Definition.model_validate({"start": next(iter(steps)), "steps": steps, **rules})
    told = in_order(tuple(Happening.model_validate(each) for each in script), START)
    given = World.model_validate(world or {})
    plan = Plan(definition, around or surroundings(), Plain(), given, told, START, START + until, max_commands)
    someone = who or person()
    found = travel(plan, someone, run_of(someone))
    _require_possible(definition, told, found, until)
    return found


def _require_possible(definition: Definition, script: Sequence[tuple[datetime, Happening]], found: Trip, until: timedelta) -> None:
    """Whatever a trip came to can be expected of it."""
    if len(found.lines) > MAX_LINES:
        return
    happenings = tuple(happening for _, happening in script)
    case = Case(name="as it is", start=START, until=until, script=happenings, expected=expected_of(found))
    assert [*impossible(case), *unfitting(case, definition)] == []


def kinds(found: Trip) -> list[str]:
    return [line.change.kind for line in found.lines]


def after(found: Trip, kind: str) -> timedelta:
    """When a kind of change happened first."""
    return next(line.at for line in found.lines if line.change.kind == kind) - START


def reasons(found: Trip) -> list[str]:
    return [line.change.reason for line in found.lines if line.change.reason is not None]


__all__ = ["OTHER", "SEND", "START", "TOPIC", "UUID", "after", "kinds", "person", "reasons", "surroundings", "trip"]
