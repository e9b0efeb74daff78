"""Running journeys under a virtual clock: people, surroundings and printer for `models.domain.simulation`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import UUID, uuid5

from activities.contracts.sending import MAXIMUM_TRIES
from api.commands.contacts import normalize_field
from api.commands.events import property_problems
from api.processor import Heed
from models.domain.contact import FIELDS, Malformed, normalize_attributes, normalize_tags
from models.domain.errors import Problem
from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.definition import Definition, SendStep
from models.domain.journey.facts import Facts
from models.domain.journey.happening import Names
from models.domain.segment_memory import Happened
from models.domain.simulation.person import LINES, Person, numbered
from models.domain.simulation.scenario import (
    ChangeNow,
    Happening,
    Invented,
    PastEvent,
    Script,
    World,
    contact_problems,
    in_order,
    script_problems,
    world_problems,
)
from models.domain.simulation.simulate import entry_problems
from models.domain.simulation.surroundings import Message, Surroundings
from models.domain.simulation.trip import Plan
from models.message_content import printed_json, printed_mail, printed_message
from models.store import simulation_facts
from models.store.session import OrganizationSession

# Stands in simulated messages where a real one has its recipient's own link: always the same, so that messages can be compared.
UNSUBSCRIBE_URL: Final = "https://unsubscribe.invalid/"


@dataclass(frozen=True)
class Printer:
    """Prints as sending does."""

    organization_name: str

    def message(self, step: SendStep, template: TemplateContent | None, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Message:
        link = UNSUBSCRIBE_URL if step.purpose == "marketing" else None
        rendered = printed_message(step, template, contact, run, self.organization_name, link)
        return Message(rendered.subject, rendered.html, rendered.text)

    def mail(self, subject: str, text: str, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Message:
        rendered = printed_mail(subject, text, contact, run, self.organization_name)
        return Message(rendered.subject, rendered.html, rendered.text)

    def json(self, value: Any, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Any:
        return printed_json(value, contact, run, self.organization_name)


@dataclass(frozen=True)
class Vocabulary:
    """What a scenario can speak of in this organization, whatever the journey: topics by key, and the schema of custom attributes."""

    topics: Mapping[str, UUID]
    attributes: Mapping[str, Any]

    def contact_problems(self, contact: Invented, path: str) -> list[Problem]:
        past = (property_problems(event.properties, f"{path}.events[{index}].properties") for index, event in enumerate(contact.events))
        known = contact_problems(contact, self.topics, self.attributes, path)
        return [*known, *_malformed(contact, contact.country, path), *chain.from_iterable(past)]

    def script_problems(self, world: World, script: Script, path: str, script_path: str) -> list[Problem]:
        """`path`: of the world."""
        at = f"{path}." if path else ""
        return [
            *script_problems(script, self.topics, self.attributes, script_path),
            *_malformed_changes(script, script_path),
            *(() if world.event is None else property_problems(world.event.properties, f"{at}event.properties")),
            *_large_events(script, script_path),
        ]


@dataclass(frozen=True)
class Stage:
    """A frozen definition with all that simulating it needs of the organization."""

    definition: Definition
    surroundings: Surroundings
    printer: Printer
    topic_names: Mapping[str, str]  # by id

    @property
    def names(self) -> Names:
        """What the reader calls things, as in the timelines of runs."""
        return Names(steps={step_id: step.name for step_id, step in self.definition.steps.items() if step.name}, topics=self.topic_names)

    def plan(self, world: World, script: Script, start: datetime, until: timedelta, heed: Heed) -> Plan:
        """Times are taken as UTC, to the microsecond. `heed`: as the plan has it."""
        start = start.astimezone(UTC)
        told = in_order(tuple(self._normalized(happening) for happening in script), start)
        return Plan(self.definition, self.surroundings, self.printer, world, told, start, start + until, heed=heed)

    def problems(self, world: World, script: Script, path: str = "", script_path: str = "script") -> list[Problem]:
        """What is wrong with the scenario, each with its path; `path`: of the world."""
        at = f"{path}." if path else ""
        return [
            *world_problems(world, script, self.definition, path, script_path),
            *entry_problems(self.definition, world, f"{at}event"),
            *self._vocabulary.script_problems(world, script, path, script_path),
        ]

    def contact_problems(self, contact: Invented, path: str) -> list[Problem]:
        return self._vocabulary.contact_problems(contact, path)

    @property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.surroundings.topic_ids, self.surroundings.attributes)

    def invent(self, contact: Invented, start: datetime, number: int = 0) -> Person:
        """The contact, who has no problems, in memory. The same contact (and number) has the same id."""
        start = start.astimezone(UTC)
        identifier = contact.id or uuid5(LINES, f"contact/{number}")
        made = (contact.created_at or start).astimezone(UTC)
        fields: dict[str, Any] = {name: _field(name, getattr(contact, name), contact.country) for name in FIELDS}
        fields |= {"created_at": made, "updated_at": made}
        attributes, _ = normalize_attributes(contact.attributes, self.surroundings.attributes)
        present = {key: value for key, value in attributes.items() if value is not None}
        person = Person(identifier, fields, present, normalize_tags(contact.tags))
        for said in contact.consents:
            person.say(self.surroundings.topic_ids[said.topic], said.channel, said.status, made)
        for channel in contact.suppressed:
            person.suppress(channel)
        person.events = numbered(_past(index, event, start) for index, event in enumerate(contact.events))
        return person

    def _normalized(self, happening: Happening) -> Happening:
        """With the values of a change as they are stored; what is malformed has been refused before."""
        change = happening.change
        if change is None:
            return happening
        said: dict[str, Any] = {name: _field(name, getattr(change, name), change.country) for name in change.model_fields_set & set(FIELDS)}
        if change.attributes:
            said["attributes"] = normalize_attributes(change.attributes, self.surroundings.attributes)[0]
        return happening.model_copy(update={"change": change.model_copy(update=said)})


async def vocabulary(session: OrganizationSession) -> Vocabulary:
    return Vocabulary(*await simulation_facts.vocabulary(session))


async def stage(session: OrganizationSession, definition: Definition, facts: Facts) -> Stage:
    around = await simulation_facts.surroundings(session, definition, facts, MAXIMUM_TRIES)
    return Stage(definition, around.surroundings, Printer(around.organization_name), around.topic_names)


def _field(name: str, value: str | None, country: str | None) -> str | None:
    return normalize_field(name, value, country)


def _malformed(contact: Invented | ChangeNow, country: str | None, path: str) -> Iterator[Problem]:
    for name in FIELDS:
        try:
            _field(name, getattr(contact, name), country)
        except Malformed as error:
            yield Problem(f"{path}.{name}", error.code, error.message)


def _malformed_changes(script: Script, path: str) -> Iterator[Problem]:
    for index, each in enumerate(script):
        if each.change is not None:
            yield from _malformed(each.change, each.change.country, f"{path}[{index}].change")


def _large_events(script: Script, path: str) -> Iterator[Problem]:
    for index, each in enumerate(script):
        if each.event is not None:
            yield from property_problems(each.event.properties, f"{path}[{index}].event.properties")


def _past(number: int, event: PastEvent, start: datetime) -> Happened:
    """Before the run's entry, however short."""
    at = start - event.before
    return Happened(number, event.name, at - timedelta(microseconds=1), at, event.properties)
