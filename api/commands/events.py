"""Accepting events: durably before the answer, matched afterwards."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from api.commands.accepting import acceptor
from api.commands.routing import poke_soon
from api.dependencies import Caller
from models.addresses import normalize_email
from models.domain.contact import Malformed, normalize_text
from models.domain.errors import Invalid, Problem
from models.domain.journey.draft import storable
from models.domain.segment_values import at_zone
from models.store import events
from models.store.events import Accepted, NewEvent

PROPERTIES_BYTES = 32 * 1024
LATEST = timedelta(minutes=10)  # how far a sender's clock may be ahead


@dataclass(frozen=True)
class SaidEvent:
    """An event as a request says it."""

    id: str | None
    name: str
    contact_id: UUID | None
    external_id: str | None
    email: str | None
    properties: dict[str, Any]
    occurred_at: datetime | None
    hidden: bool


async def accept(caller: Caller, said: Sequence[SaidEvent], *, make_contacts: bool, single: bool) -> list[Accepted]:
    """Every event is on record, once, and its consequences are on their way. All or none: a batch with a mistake is refused whole.

    Raises:
        Invalid: with the path of every mistake; `[3].name` in a batch.
    """
    now = datetime.now(UTC)
    problems: list[Problem] = []
    new = [_checked(event, "" if single else f"[{index}].", now, problems) for index, event in enumerate(said)]
    if problems:
        raise Invalid(problems)
    accepted = await (_accept_alone if len(new) > 1 else _accept_together)(caller, new, make_contacts)
    if unknown := [one for one in accepted if one.contact_id is None]:
        raise Invalid([_unknown(said[one.position], "" if single else f"[{one.position}].") for one in unknown])
    if any(one.new for one in accepted):
        poke_soon(caller.services, caller.organization_id)
    return accepted


async def _accept_together(caller: Caller, new: Sequence[NewEvent], make_contacts: bool) -> list[Accepted]:
    """In a transaction with other requests' single events. One whose contact is unknown is not written."""
    return await acceptor(caller.services, caller.organization_id, make_contacts).accept(new)


async def _accept_alone(caller: Caller, new: Sequence[NewEvent], make_contacts: bool) -> list[Accepted]:
    """All, or none where some contact is unknown."""
    accepted: list[Accepted] = []
    with suppress(_NothingWritten):
        async with caller.session() as session:
            accepted = await events.accept(session, new, make_contacts=make_contacts)
            if any(one.contact_id is None for one in accepted):
                raise _NothingWritten
    return accepted


class _NothingWritten(Exception):
    """Rolls the transaction back."""


def _checked(event: SaidEvent, path: str, now: datetime, problems: list[Problem]) -> NewEvent:
    identities = [event.contact_id, event.external_id, event.email]
    if sum(identity is not None for identity in identities) != 1:
        problems.append(Problem(f"{path}contact_id", "one_of", "Say whose event it is by exactly one of contact_id, external_id, email."))
    if event.occurred_at is not None and event.occurred_at > now + LATEST:
        problems.append(Problem(f"{path}occurred_at", "in_the_future", "An event has happened already; leave the time out if it is now."))
    problems.extend(property_problems(event.properties, f"{path}properties"))
    return NewEvent(
        external_id=event.id,
        name=event.name,
        contact_id=event.contact_id,
        contact_external_id=_normal("external_id", event.external_id, path, problems),
        email=_normal("email", event.email, path, problems),
        properties=event.properties,
        hidden=event.hidden,
        occurred_at=at_zone(min(event.occurred_at or now, now), UTC),
    )


def property_problems(properties: Mapping[str, Any], path: str) -> list[Problem]:
    """Why no event can have these properties, each with its path under `path`; empty when one can."""
    return storable(properties, path, PROPERTIES_BYTES)


def _normal(field: str, value: str | None, path: str, problems: list[Problem]) -> str | None:
    if value is None:
        return None
    try:
        text = normalize_text(field, value)
        if text is None:
            raise Malformed("required", "Give a value.")
        return normalize_email(text) if field == "email" else text
    except Malformed as error:
        problems.append(Problem(f"{path}{field}", error.code, error.message))
        return None


def _unknown(event: SaidEvent, path: str) -> Problem:
    field = "contact_id" if event.contact_id is not None else "external_id" if event.external_id is not None else "email"
    way_out = "" if field == "contact_id" else " Create it first, or send create_contacts=true."
    return Problem(f"{path}{field}", "unknown_contact", f"There is no such contact.{way_out}")
