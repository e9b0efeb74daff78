"""A contact in memory, as it is at one moment of a simulation. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid5

from models.domain.decision import ConsentLine
from models.domain.segment_memory import Happened, Subject

LINES = UUID("7d0b6d4e-5a0c-5f2b-9f43-0f0f5a3c8e21")  # the namespace of ids that nothing real has


@dataclass(frozen=True)
class HeldConsent:
    """The line of the ledger in force. `left_at`: when the contact last withdrew by another way than a journey's step, and has not granted
    by such a way since; as far as the simulation goes back."""

    line: ConsentLine
    left_at: datetime | None = None


@dataclass
class Person:
    """`fields`: the columns of a contact, created_at and updated_at included. `suppressed`: ids, by address family and address."""

    id: UUID
    fields: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    consents: dict[tuple[UUID, str], HeldConsent] = field(default_factory=dict)
    suppressed: dict[tuple[str, str], UUID] = field(default_factory=dict)
    events: list[Happened] = field(default_factory=list)

    @property
    def row(self) -> dict[str, Any]:
        """As templates read it."""
        return {"id": self.id, **self.fields, "attributes": self.attributes, "tags": self.tags}

    def subject(self, topics: Mapping[str, UUID], variables: Mapping[str, Any], began: Callable[[Happened], bool]) -> Subject:
        """As rules see it now."""
        consents = {key: standing.line.status for key, standing in self.consents.items()}
        return Subject(self.fields, self.attributes, self.tags, consents, topics, self.events, variables, began)

    def address(self, channel: str) -> str | None:
        found: str | None = self.fields.get("email" if channel == "email" else "phone")
        return found or None

    def suppression(self, channel: str) -> UUID | None:
        address = self.address(channel)
        return None if address is None else self.suppressed.get((_family(channel), address.strip().lower()))

    # --- changes ------------------------------------------------------------------------------------------------------

    def suppress(self, channel: str, identifier: UUID | None = None) -> None:
        """The address, if there is one, is suppressed. `identifier`: of the suppression; None: an invented one."""
        address = self.address(channel)
        if address is not None:
            self.suppressed[_family(channel), address.strip().lower()] = identifier or uuid5(LINES, f"suppression/{self.id}/{channel}")

    def say(self, topic_id: UUID, channel: str, status: Literal["granted", "withdrawn"], at: datetime, *, by_a_step: bool = False) -> None:
        before = self.consents.get((topic_id, channel))
        if before is None or before.line.occurred_at <= at:
            line = ConsentLine(uuid5(LINES, f"consent/{self.id}/{topic_id}/{channel}/{at.isoformat()}"), status, at)
            left_at = at if status == "withdrawn" else None
            if by_a_step:
                left_at = None if before is None else before.left_at
            self.consents[topic_id, channel] = HeldConsent(line, left_at)

    def meet(self, name: str, properties: Mapping[str, Any], at: datetime) -> Happened:
        event = Happened(self.events[-1].number + 1 if self.events else 1, name, at, at, properties)
        self.events.append(event)
        return event

    def change(self, fields: Mapping[str, Any], attributes: Mapping[str, Any], tags: Sequence[str], at: datetime) -> list[str]:
        """Attributes are merged by key, where None removes one; these are the tags. Answers the fields with another value now."""
        changed = [name for name, value in fields.items() if self.fields.get(name) != value]
        changed += [f"attributes.{key}" for key, value in attributes.items() if self.attributes.get(key) != value]
        changed += ["tags"] if sorted(self.tags) != sorted(tags) else []
        if changed:
            merged = {**self.attributes, **attributes}
            self.attributes = {key: value for key, value in merged.items() if value is not None}
            self.tags = list(tags)
            self.fields = {**self.fields, **fields, "updated_at": at}
        return sorted(changed)


def numbered(events: Iterable[Happened]) -> list[Happened]:
    """In the order of acceptance, numbered from 1."""
    ordered = sorted(events, key=lambda event: (event.accepted_at, event.number))
    return [replace(event, number=number) for number, event in enumerate(ordered, 1)]


def _family(channel: str) -> str:
    return "email" if channel == "email" else "phone"
