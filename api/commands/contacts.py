"""What a request says about a contact, checked and put in order, then saved with its audit entry."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from api.commands.routing import poke_if_listening
from api.dependencies import Caller
from models.addresses import normalize_email, normalize_phone, normalize_timezone
from models.domain.audit import NewEntry
from models.domain.contact import (
    FIELDS,
    Malformed,
    normalize_attributes,
    normalize_country,
    normalize_locale,
    normalize_tags,
    normalize_text,
)
from models.domain.errors import Invalid, Problem
from models.store import audit, contacts
from models.store.contacts import Saved
from models.store.session import OrganizationSession

_NORMALIZE: Mapping[str, Callable[[str], str]] = {
    "email": normalize_email,
    "locale": normalize_locale,
    "timezone": normalize_timezone,
    "country": normalize_country,
}


async def save_contact(caller: Caller, given: Mapping[str, Any]) -> Saved:
    """The contact with the given external id or email has the given values; made when there is none.

    Raises:
        Invalid: a value breaks a rule; the path names the field.
        Conflict: external id and email belong to two contacts.
    """
    async with caller.session() as session:
        values = await _normalize(session, given, country=given.get("country"))
        if values.get("external_id") is None and values.get("email") is None:
            raise Invalid.field("email", "no_identity", "Give an email or an external_id: contacts are recognised by them.")
        saved = await contacts.upsert(session, {name: value for name, value in values.items() if _is_said(name, value)})
        await _record(session, caller, saved)
    await poke_if_listening(caller)
    return saved


def _is_said(name: str, value: Any) -> bool:
    """A null identity in an upsert says nothing: it would take away what the contact is recognised by."""
    return not (name in ("external_id", "email") and value is None)


async def change_contact(caller: Caller, contact_id: UUID, given: Mapping[str, Any]) -> Saved:
    """The contact has the given values; null takes one away.

    Raises:
        NotFound, Invalid, Conflict: as for `models.store.contacts.change`.
    """
    async with caller.session() as session:
        contact = await contacts.get(session, contact_id)
        values = await _normalize(session, given, country=given.get("country", contact.country))
        saved = await contacts.change(session, contact_id, values)
        await _record(session, caller, saved)
    await poke_if_listening(caller)
    return saved


async def _record(session: OrganizationSession, caller: Caller, saved: Saved) -> None:
    if saved.created or saved.changed:
        action = "contact.created" if saved.created else "contact.changed"
        details = {"fields": list(saved.changed)}
        await audit.append(session, [NewEntry(action, "contact", str(saved.contact.id), caller.actor, details)])


async def _normalize(session: OrganizationSession, given: Mapping[str, Any], country: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name in FIELDS:
        if name in given:
            try:
                values[name] = normalize_field(name, given[name], country)
            except Malformed as error:
                problems.append(Problem(name, error.code, error.message))
    if given.get("tags") is not None:
        try:
            values["tags"] = normalize_tags(given["tags"])
        except Malformed as error:
            problems.append(Problem("tags", error.code, error.message))
    if given.get("attributes"):
        schema = await contacts.attribute_schema(session)
        values["attributes"], wrong = normalize_attributes(given["attributes"], schema)
        problems.extend(wrong)
    if problems:
        raise Invalid(problems)
    return values


def normalize_field(name: str, value: str | None, country: str | None = None) -> str | None:
    """One field's value in the form that is stored; None for an empty one. Raises Malformed."""
    text = None if value is None else normalize_text(name, value)
    if text is None:
        return None
    if name == "phone":
        return normalize_phone(text, country.strip().upper() if country else None)
    return _NORMALIZE[name](text) if name in _NORMALIZE else text
