"""What exists around a journey, as far as publishing it needs to know. Pure."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID


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
class Facts:
    """Templates, topics and connections by id; `attributes` is the organization's schema of custom attributes
    (None: they are not checked)."""

    templates: Mapping[UUID, TemplateFact] = field(default_factory=dict)
    topics: Mapping[UUID, TopicFact] = field(default_factory=dict)
    connections: Mapping[UUID, ConnectionFact] = field(default_factory=dict)
    attributes: Mapping[str, Any] | None = None

    def default_connection(self, channel: str) -> UUID | None:
        """The connection that sends this channel's messages when a step names none."""
        fits = (id for id, connection in self.connections.items() if connection.channel == channel and connection.is_default)
        return next(fits, None)
