"""One thing that happened to a run, with what is needed to tell it. Pure."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from models.domain.segment_values import at_zone

THIS_TOPIC = "this topic"  # one whose name is not known
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Names:
    """What the reader calls things: steps by step id, topics by id (as text), people by id (as text). `by_move`: the steps in the
    version that the run came with, then in the one that it was first moved to, and so on; empty: it was always on the same."""

    steps: Mapping[str, str] = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)
    actors: Mapping[str, str] = field(default_factory=dict)
    by_move: Sequence[Mapping[str, str]] = ()

    def after(self, moves: int) -> "Names":
        """As things were called when the run had been moved so many times."""
        return replace(self, steps=self.by_move[min(moves, len(self.by_move) - 1)]) if self.by_move else self

    def step(self, step_id: str | None) -> str:
        return f'"{self.steps.get(step_id) or step_id}"' if step_id else "a step"

    def topic(self, topic_id: object) -> str:
        return self.topics.get(str(topic_id), THIS_TOPIC)

    def actor(self, details: Mapping[str, Any]) -> str:
        kind, actor_id = details.get("actor_kind"), details.get("actor_id")
        if actor_id is None or kind in (None, "system"):
            return ""
        return f" by {self.actors.get(str(actor_id), 'an API key' if kind == 'api_key' else 'a user')}"


@dataclass(frozen=True)
class Happening:
    """One thing to be told. `details` are an event's own, `inputs` the facts of the decision behind it, if any."""

    kind: str
    names: Names
    step_id: str | None = None
    visit: int | None = None
    reason: str | None = None
    until: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)


def moment(at: datetime, zone: str | None = None) -> str:
    """`24 Nov 2026 08:00 UTC`, or `24 Nov 2026 08:00 in Europe/Berlin`; with seconds where there are any. `at` is aware."""
    local, suffix = at_zone(at, UTC), "UTC"
    if zone is not None and zone != "UTC":
        with suppress(KeyError, ValueError, OSError):  # no such zone: ZoneInfoNotFoundError is a KeyError
            local, suffix = at_zone(at, ZoneInfo(zone)), f"in {zone}"
    clock = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    return f"{local.day} {MONTHS[local.month - 1]} {local.year} {clock} {suffix}"
