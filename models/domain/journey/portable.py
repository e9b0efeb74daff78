"""A journey as one document that can live in git: what it names is named by name instead of by this organization's ids. Pure.

    "template_id": "0190…"    becomes    "template_id": {"template": "Welcome"}

A topic is named by its key, a pinned template version by its template, number and content hash. What names nothing that
exists stays as it is, and so do members, who are ids of people.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from models.domain.journey.definition import KINDS

FORMAT = "leadstats.journey/1"
# Under which key something is named, and what.
REFERENCES: Mapping[str, str] = {
    "template_id": "template",
    "template_version_id": "version",
    "topic_id": "topic",
    "connection_id": "connection",
    "segment_id": "segment",
    "segment": "segment",
    "journey_id": "journey",
}


@dataclass(frozen=True)
class Version:
    """A pinned template version. With the same hash it says the same; the number tells two such apart."""

    template: str
    number: int
    content_hash: str


Name = str | Version
Visit = Callable[[str, str, Any], Any]  # what is named (`template`, …), the path, the id or reference → what takes its place


def ids_in(draft: Any) -> set[UUID]:
    """Every id by which the draft names something."""
    found: set[UUID] = set()

    def note(kind: str, path: str, value: Any) -> Any:
        if (identifier := _id(value)) is not None:
            found.add(identifier)
        return value

    visited(draft, "", note)
    return found


def with_names(draft: Any, names: Mapping[tuple[str, UUID], Name]) -> Any:
    """The draft with references in the place of the ids that `names` knows, by what is named and its id."""

    def name(kind: str, path: str, value: Any) -> Any:
        identifier = _id(value)
        found = None if identifier is None else names.get((kind, identifier))
        return value if found is None else reference(kind, found)

    return visited(draft, "", name)


def reference(kind: str, name: Name) -> dict[str, Any]:
    if isinstance(name, Version):
        return {"content_hash": name.content_hash, "template": name.template, "version": name.number}
    return {kind: name}


def names_in(draft: Any, path: str) -> list[tuple[str, str, Name]]:
    """Every reference in the document's draft or rule: what is named, where, and its name; and topics that rules name by their key."""
    found: list[tuple[str, str, Name]] = []

    def note(kind: str, where: str, value: Any) -> Any:
        if (name := _name(kind, value)) is not None:
            found.append((kind, where, name))
        return value

    visited(draft, path, note)
    return [*found, *(("topic", where, key) for where, key in _topic_keys(draft, path))]


def with_ids(draft: Any, ids: Mapping[tuple[str, Name], UUID]) -> Any:
    """The draft with this organization's ids in the place of references. Those that `ids` does not know stay."""

    def resolve(kind: str, path: str, value: Any) -> Any:
        name = _name(kind, value)
        found = None if name is None else ids.get((kind, name))
        return value if found is None else str(found)

    return visited(draft, "", resolve)


def visited(value: Any, path: str, visit: Visit) -> Any:
    """A copy of the JSON in which `visit` has replaced what names something."""
    match value:
        case dict():
            kind = KINDS.get(value["kind"]) if isinstance(value.get("kind"), str) else None
            skip = kind.opaque if kind is not None else ()
            return {
                key: inner if key in skip else _member(key, inner, f"{path}.{key}" if path else key, visit) for key, inner in value.items()
            }
        case list():
            return [visited(inner, f"{path}[{index}]", visit) for index, inner in enumerate(value)]
    return value


def _member(key: str, value: Any, path: str, visit: Visit) -> Any:
    kind = REFERENCES.get(key)
    if kind is not None and (_id(value) is not None or _name(kind, value) is not None):
        return visit(kind, path, value)
    return visited(value, path, visit)  # a step may be called so


def _id(value: Any) -> UUID | None:
    """Only in the usual spelling: another would not come back from a journey there and back."""
    try:
        identifier = UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return identifier if identifier is not None and str(identifier) == value else None


def _name(kind: str, value: Any) -> Name | None:
    match value:
        case {"template": str(template), "version": int(number), "content_hash": str(content_hash)} if kind == "version":
            return Version(template, number, content_hash) if len(value) == 3 else None
        case dict() if kind != "version" and len(value) == 1 and isinstance(value.get(kind), str):
            return str(value[kind])
    return None


def _topic_keys(value: Any, path: str) -> Iterator[tuple[str, str]]:
    match value:
        case {"consent": {"topic": str(key)}}:
            yield f"{path}.consent.topic", key
        case dict():
            for name, inner in value.items():
                yield from _topic_keys(inner, f"{path}.{name}" if path else name)
        case list():
            for index, inner in enumerate(value):
                yield from _topic_keys(inner, f"{path}[{index}]")


def ordered(value: Any) -> Any:
    """The JSON with every object's keys in alphabetical order, so that the same journey is the same text."""
    match value:
        case dict():
            return {key: ordered(value[key]) for key in sorted(value)}
        case list():
            return [ordered(inner) for inner in value]
    return value
