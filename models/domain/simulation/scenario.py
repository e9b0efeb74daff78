"""What a simulation is given: invented contacts, what happens to them and when, how the world answers. Pure."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field, StringConstraints

from models.domain.contact import Malformed, normalize_attributes, normalize_tags
from models.domain.errors import Problem
from models.domain.journey import written
from models.domain.journey.definition import Definition
from models.domain.journey.draft import storable
from models.domain.journey.steps.base import Channel, EventName, Model, StepId
from models.domain.journey.variables import Variables, variable_problems
from models.domain.simulation.effects import ANSWERED

MAX_SCRIPT = 200
MAX_EVENTS = 200  # that an invented contact brings along
MAX_ANSWERS = 50
MAX_BYTES = 64 * 1024  # of a scenario, as JSON
LONGEST = timedelta(days=1_100)
USUAL = timedelta(days=366)
NOBODY = "someone@example.com"

Tag = Annotated[str, Field(min_length=1, max_length=64)]
TopicKey = Annotated[str, StringConstraints(max_length=63)]
Attributes = Annotated[dict[str, Any], Field(max_length=200)]
# So far from the calendar's ends that nothing which is reckoned from it leaves the calendar.
Moment = Annotated[written.Moment, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(2999, 12, 31, tzinfo=UTC))]
Offset = Annotated[timedelta, Field(ge=timedelta(0), le=LONGEST), BeforeValidator(written.written_offset)]
Outcome = Literal["accepted", "bounced", "opted_out", "content_refused", "gave_up", "unknown"]


class Says(Model):
    """A line of the consent ledger. `topic` by its key."""

    topic: TopicKey
    channel: Channel = "email"
    status: Literal["granted", "withdrawn"] = "granted"


class PastEvent(Model):
    """An event that happened so long before the start."""

    name: EventName
    before: Offset = timedelta(0)
    properties: dict[str, Any] = Field(default_factory=dict)


class ContactFields(Model):
    """What is said of a contact itself. `models.domain.contact` says what may stand there."""

    external_id: str | None = None
    email: str | None = None
    phone: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    locale: str | None = None
    timezone: str | None = None
    country: str | None = None
    region: str | None = None
    postal_code: str | None = None
    attributes: Attributes = Field(default_factory=dict)


class Invented(ContactFields):
    """A contact that does not exist. `id` decides which way it takes at a split, and how long a spread delays it."""

    id: UUID | None = None
    email: str | None = NOBODY
    tags: Annotated[tuple[Tag, ...], Field(max_length=100)] = ()
    consents: Annotated[tuple[Says, ...], Field(max_length=100)] = ()
    suppressed: Annotated[tuple[Channel, ...], Field(max_length=2)] = ()
    events: Annotated[tuple[PastEvent, ...], Field(max_length=MAX_EVENTS)] = ()
    created_at: Moment | None = None  # None: at the start


class EventNow(Model):
    name: EventName
    properties: dict[str, Any] = Field(default_factory=dict)


class ChangeNow(ContactFields):
    """Fields that are left out stay as they are; null empties one. Attributes are merged by key."""

    add_tags: Annotated[tuple[Tag, ...], Field(max_length=100)] = ()
    remove_tags: Annotated[tuple[Tag, ...], Field(max_length=100)] = ()


class Happening(Model):
    """One thing that happens `after` so long from the start: exactly one of the others. What is said of the same moment comes in the
    order of the script, and before what the journey does at that moment."""

    after: Offset = timedelta(0)
    event: EventNow | None = None
    change: ChangeNow | None = None
    consent: Says | None = None
    suppress: Channel | None = None
    review: Literal["approved", "rejected"] | None = None
    control: Literal["retry", "skip", "cancel"] | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(kind for kind in KINDS if getattr(self, kind) is not None)


KINDS = ("event", "change", "consent", "suppress", "review", "control")


class WebhookAnswer(Model):
    """How another system answers a call: its status and its JSON."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    body: Any = None


class World(Model):
    """What is the same for every contact of a simulation. `event`: they enter by it, as its trigger says; its properties become the
    run's variables. `webhooks`: the answers to each try of a step's call, the last of them to all others; left out: 200. `sends`: what
    the provider says to the step's messages; left out: accepted."""

    variables: Variables = Field(default_factory=dict)
    event: EventNow | None = None
    webhooks: dict[StepId, Annotated[tuple[WebhookAnswer, ...], Field(min_length=1, max_length=MAX_ANSWERS)]] = Field(
        default_factory=dict, max_length=100
    )
    sends: dict[StepId, Outcome] = Field(default_factory=dict, max_length=500)


class Given(World):
    contact: Invented = Invented()


Script = Annotated[tuple[Happening, ...], Field(max_length=MAX_SCRIPT)]


def in_order(script: Script, start: datetime) -> list[tuple[datetime, Happening]]:
    return sorted(((start + each.after, each) for each in script), key=lambda pair: pair[0])


def world_problems(world: World, script: Script, definition: Definition, path: str = "", script_path: str = "script") -> Iterator[Problem]:
    """Where it names what the journey does not have, or says what cannot be."""
    at = f"{path}." if path else ""
    scenario = {"given": world.model_dump(mode="json"), "script": [each.model_dump(mode="json") for each in script]}
    yield from variable_problems(world.variables, f"{at}variables") or storable(scenario, path or "body", MAX_BYTES)
    for field, kinds, what in (("webhooks", ANSWERED, "calls a webhook"), ("sends", frozenset({"send"}), "sends")):
        for step_id in getattr(world, field):
            step = definition.steps.get(step_id)
            if step is None or step.kind not in kinds:
                yield Problem(f"{at}{field}.{step_id}", "unknown_step", f"The journey has no step {step_id!r} that {what}.")
    yield from kind_problems(script, script_path)


def kind_problems(script: Script, path: str) -> Iterator[Problem]:
    for index, each in enumerate(script):
        if len(each.kinds) != 1:
            yield Problem(f"{path}[{index}]", "one_of", f"Say exactly one of {', '.join(KINDS)}.")


def late_problems(script: Script, until: timedelta, path: str) -> Iterator[Problem]:
    """What would never happen, for nothing is looked at any more by then."""
    for index, each in enumerate(script):
        if each.after > until:
            message = "This comes after the end, and would never happen: make `until` longer, or take it out."
            yield Problem(f"{path}[{index}].after", "after_end", message)


def contact_problems(contact: Invented, topics: Mapping[str, UUID], schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
    yield from _said(path, contact.attributes, (*contact.tags,), schema)
    for index, line in enumerate(contact.consents):
        yield from _topic(f"{path}.consents[{index}].topic", line.topic, topics)


def script_problems(script: Script, topics: Mapping[str, UUID], schema: Mapping[str, Any], path: str) -> Iterator[Problem]:
    for index, each in enumerate(script):
        if each.consent is not None:
            yield from _topic(f"{path}[{index}].consent.topic", each.consent.topic, topics)
        if each.change is not None:
            tags = (*each.change.add_tags, *each.change.remove_tags)
            yield from _said(f"{path}[{index}].change", each.change.attributes, tags, schema)


def _said(path: str, attributes: Mapping[str, Any], tags: tuple[str, ...], schema: Mapping[str, Any]) -> Iterator[Problem]:
    yield from normalize_attributes(attributes, schema, f"{path}.attributes")[1]
    try:
        normalize_tags(tags)
    except Malformed as error:
        yield Problem(f"{path}.tags", error.code, error.message)


def _topic(path: str, key: str, topics: Mapping[str, UUID]) -> Iterator[Problem]:
    if key not in topics:
        known = ", ".join(sorted(topics)) or "none yet"
        yield Problem(path, "unknown_topic", f"There is no topic with the key {key!r}; there is {known}.")
