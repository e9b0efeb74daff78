"""What exists around a journey, as far as publishing it needs to know. Pure."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from models.domain.segment import inline_segments


@dataclass(frozen=True)
class TemplateFact:
    """`versions`: the names that each version prints or tests, by version id."""

    channel: str
    archived: bool = False
    newest_version_id: UUID | None = None  # None: no version yet
    versions: Mapping[UUID, Set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class TopicFact:
    key: str
    archived: bool = False


@dataclass(frozen=True)
class ConnectionFact:
    channel: str
    is_default: bool = False


@dataclass(frozen=True)
class JourneyFact:
    published: bool
    archived: bool = False


@dataclass(frozen=True)
class Facts:
    """Templates, topics, connections, segments' rules and journeys by id. `attributes` is the organization's schema of custom
    attributes, `members` its users; None: these are not checked. `leads`: of the journeys that this one leads into without a wait, and
    those beyond, into which they lead (`models.domain.journey.leading`). `malformed_liquid`: what is wrong, by the text that is."""

    templates: Mapping[UUID, TemplateFact] = field(default_factory=dict)
    topics: Mapping[UUID, TopicFact] = field(default_factory=dict)
    connections: Mapping[UUID, ConnectionFact] = field(default_factory=dict)
    attributes: Mapping[str, Any] | None = None
    segments: Mapping[UUID, Mapping[str, Any]] = field(default_factory=dict)
    journeys: Mapping[UUID, JourneyFact] | None = None
    leads: Mapping[UUID, Set[UUID]] = field(default_factory=dict)
    members: Set[UUID] | None = None
    malformed_liquid: Mapping[str, str] = field(default_factory=dict)
    journey_id: UUID | None = None  # the journey itself
    now: datetime | None = None  # aware UTC; None: whether a time has passed is not checked

    def default_connection(self, channel: str) -> UUID | None:
        """The connection that sends this channel's messages when a step names none."""
        fits = (id for id, connection in self.connections.items() if connection.channel == channel and connection.is_default)
        return next(fits, None)

    def inlined(self, rule: Mapping[str, Any]) -> dict[str, Any]:
        """The rule with each segment that it names replaced by that segment's rule, as it is now."""
        return inline_segments(rule, self.segments)
