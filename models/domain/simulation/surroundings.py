"""What a simulation knows of the organization, read once. Pure."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.definition import SendStep
from models.domain.journey.facts import TopicFact


@dataclass(frozen=True)
class Message:
    """What a message says; an SMS has only `text`."""

    subject: str
    html: str
    text: str


class Printer(Protocol):
    """Prints templates as sending does. Each raises Unsendable."""

    def message(self, step: SendStep, template: TemplateContent | None, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Message: ...

    def mail(self, subject: str, text: str, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Message: ...

    def json(self, value: Any, contact: Mapping[str, Any], run: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Surroundings:
    """`published`: journeys that can be entered; `attributes`: the schema; `tries`: of a call that does not succeed."""

    timezone: str = "UTC"
    quiet_hours: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    topics: Mapping[UUID, TopicFact] = field(default_factory=dict)
    published: Set[UUID] = frozenset()
    members: Set[UUID] = frozenset()
    templates: Mapping[UUID, TemplateContent] = field(default_factory=dict)
    tries: int = 8

    @property
    def topic_ids(self) -> dict[str, UUID]:
        return {fact.key: id for id, fact in self.topics.items()}
