"""The hash chain of an organization's audit entries: what is hashed, and how. Pure.

The canonical form of an entry is UTF-8 JSON with sorted keys, no white space and no needless escapes. Its numbers are
integers of at most 53 bits (any other number is written as text), so that it equals RFC 8785 and other languages can
compute it. `hash = SHA-256(previous hash ‖ canonical form)`; the first entry's previous hash is 32 zero bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal, Self, cast
from uuid import UUID

ActorKind = Literal["user", "api_key", "system", "recipient"]
GENESIS = bytes(32)  # the previous hash of an organization's first entry
EXACT_INTEGER = 2**53 - 1  # the largest that JSON readers of other languages keep exact
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Actor:
    """Who did it. `system` has no id."""

    kind: ActorKind
    id: UUID | None = None

    @classmethod
    def of(cls, kind: str | None, id: UUID | None) -> Self:
        """As a payload or a row says it, whose kind is a plain text. None: the system."""
        return cls(cast(ActorKind, kind or "system"), id)


SYSTEM = Actor("system")


@dataclass(frozen=True)
class NewEntry:
    """A fact to be appended. `details` holds opaque ids, codes and numbers, never personal data."""

    action: str
    subject_kind: str
    subject_id: str
    actor: Actor = SYSTEM
    details: Mapping[str, Any] = field(default_factory=dict)
    occurred_at: datetime | None = None  # aware UTC; the time of appending when None


@dataclass(frozen=True)
class Link:
    """An entry as it stands in the chain. `occurred_at` is aware UTC, `details` plain JSON."""

    sequence: int
    id: UUID
    occurred_at: datetime
    actor: Actor
    action: str
    subject_kind: str
    subject_id: str
    details: Mapping[str, Any]
    previous_hash: bytes
    hash: bytes


def link(organization_id: UUID, sequence: int, previous_hash: bytes, identifier: UUID, entry: NewEntry, now: datetime) -> Link:
    """`entry` as number `sequence` of the organization's chain, after the entry whose hash is `previous_hash`.

    `now` (aware) is used when the entry has no time of its own.

    Raises:
        TypeError: `details` holds something that is not an id, code, number, time, list or mapping.
    """
    occurred_at = (entry.occurred_at or now).astimezone(UTC)
    details = plain(entry.details)
    body = document(
        organization_id, sequence, identifier, occurred_at, entry.actor, entry.action, entry.subject_kind, entry.subject_id, details
    )
    return Link(
        sequence,
        identifier,
        occurred_at,
        entry.actor,
        entry.action,
        entry.subject_kind,
        entry.subject_id,
        details,
        previous_hash,
        entry_hash(previous_hash, body),
    )


def document(
    organization_id: UUID,
    sequence: int,
    identifier: UUID,
    occurred_at: datetime,
    actor: Actor,
    action: str,
    subject_kind: str,
    subject_id: str,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """What is hashed of an entry, as plain JSON."""
    return {
        "organization_id": str(organization_id),
        "sequence": sequence,
        "id": str(identifier),
        "occurred_at": instant(occurred_at),
        "actor": {"kind": actor.kind, "id": None if actor.id is None else str(actor.id)},
        "action": action,
        "subject": {"kind": subject_kind, "id": subject_id},
        "details": details,
    }


def entry_hash(previous_hash: bytes, body: Mapping[str, Any]) -> bytes:
    """SHA-256 over the previous hash and the canonical form of `document(...)`."""
    return hashlib.sha256(previous_hash + canonical(body)).digest()


def canonical(body: Mapping[str, Any]) -> bytes:
    """The canonical form of plain JSON (see the module's text)."""
    return _ENCODER.encode(body).encode()


def instant(moment: datetime) -> str:
    """UTC with microseconds: `2026-01-31T09:00:00.000000Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def plain(value: Any) -> Any:
    """`value` as JSON that survives a database and any JSON reader unchanged: ids and times as text, and numbers that
    are not exact integers as text.

    Raises:
        TypeError: there is no such form.
    """
    match value:
        case None | bool():
            return value
        case str():
            return str(value)  # a StrEnum becomes its text
        case int():
            return int(value) if abs(value) <= EXACT_INTEGER else str(int(value))
        case float():
            return int(value) if value.is_integer() and abs(value) <= EXACT_INTEGER else repr(value)
        case UUID():
            return str(value)
        case datetime():
            return instant(value)
        case date():
            return value.isoformat()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            raise TypeError(f"An audit entry cannot hold a {type(value).__name__}.")
