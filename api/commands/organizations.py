"""Making an organization, and changing its settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from api.auth.passwords import hash_password
from api.auth.tokens import NewKey, new_key
from api.commands.connections import create_sandbox_connection
from api.dependencies import Caller, Services
from models.domain.audit import Actor, NewEntry
from models.domain.contact import check_attribute_schema
from models.domain.errors import AttributeInUse, Conflict, Invalid, Problem
from models.domain.permissions import PERMISSIONS, Role
from models.domain.quiet_hours import read_window
from models.domain.zones import zone_names
from models.store import access, audit, contacts
from models.store.session import OrganizationSession
from models.tables.access import ApiKey, Organization
from models.tables.base import new_id

CHANNELS: Final = ("email", "sms", "mms", "voice", "slack", "webhook")


@dataclass(frozen=True)
class CreatedOrganization:
    """`api_key` may do everything; it is shown once."""

    organization_id: UUID
    user_id: UUID
    api_key: str


async def create_organization(services: Services, name: str, slug: str, owner_email: str, owner_password: str) -> CreatedOrganization:
    """The organization exists with its owner, an API key of theirs and a connection to the mail sandbox.

    Somebody who already has a login elsewhere keeps their password and becomes the owner here too. Not idempotent: to
    repeat safely, ask `organization_id_of` first.

    Raises:
        Conflict: the slug is taken; nothing is written.
    """
    if await organization_id_of(services, slug) is not None:
        raise Conflict(f"There is already an organization {slug}; choose another slug.")
    organization_id, key = new_id(), new_key()
    password_hash = await hash_password(owner_password)
    async with services.database.outside() as outside:
        login = await access.find_login(outside, owner_email)
    user_id = new_id() if login is None else login.user_id
    async with services.database.organization(organization_id) as session:
        await access.insert_organization(session, name, slug)
        if login is None:
            await access.insert_user(session, user_id, owner_email, password_hash)
        await access.insert_membership(session, user_id, Role.OWNER)
        key_id = await _first_key(session, key, user_id)
        await audit.append(session, _created(organization_id, user_id, key_id))
        await create_sandbox_connection(session, services.settings, Actor("user", user_id))
    return CreatedOrganization(organization_id, user_id, key.secret)


async def organization_id_of(services: Services, slug: str) -> UUID | None:
    """The organization with this slug, if there is one."""
    async with services.database.outside() as session:
        return await access.organization_id_by_slug(session, slug)


async def _first_key(session: OrganizationSession, key: NewKey, user_id: UUID) -> UUID:
    row = ApiKey(
        organization_id=session.organization_id,
        name="First key",
        prefix=key.prefix,
        secret_hash=key.secret_hash,
        scopes=sorted(PERMISSIONS),
        created_by=user_id,
    )
    await access.insert_api_key(session, row)
    return row.id


def _created(organization_id: UUID, user_id: UUID, key_id: UUID) -> list[NewEntry]:
    owner = Actor("user", user_id)
    return [
        NewEntry("organization.created", "organization", str(organization_id), owner),
        NewEntry("member.added", "user", str(user_id), owner, {"role": Role.OWNER}),
        NewEntry("api_key.created", "api_key", str(key_id), owner, {"scopes": sorted(PERMISSIONS)}),
    ]


async def change_organization(caller: Caller, changes: Mapping[str, Any]) -> Organization:
    """The settings named in `changes` (name, timezone, quiet_hours, attribute_schema) have these values; quiet hours by
    channel, where None takes a channel's away. Says nothing to the audit record when nothing changes.

    Raises:
        Invalid: a value breaks a rule; nothing is changed.
        AttributeInUse: an attribute that contacts have values for would be removed or get another type.
    """
    if problems := _problems(changes):
        raise Invalid(problems)
    async with caller.session() as session:
        organization = await access.get_organization(session, lock=True)
        if "attribute_schema" in changes:
            await _check_unused(session, organization.attribute_schema, changes["attribute_schema"])
        changed = [name for name, value in _merged(organization, changes).items() if _set(organization, name, value)]
        if changed:
            await session.flush()
            await audit.append(session, [_changed(caller, organization.id, changed)])
    return organization


async def _check_unused(session: OrganizationSession, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Values keep the form of the type they were given under: no rule, template or import would read them rightly."""
    touched = [key for key, declared in before.items() if after.get(key) != declared]
    held = await contacts.count_holding(session, touched) if touched else {}
    if held:
        said = ", ".join(f"{key} ({count} {'contact' if count == 1 else 'contacts'})" for key, count in held.items())
        message = f"Contacts have values for {said}: set them to null before you remove the attribute or change its type, or add another."
        raise AttributeInUse(message)


def _problems(changes: Mapping[str, Any]) -> list[Problem]:
    problems: list[Problem] = []
    if "timezone" in changes and changes["timezone"] not in zone_names():
        problems.append(Problem("timezone", "unknown_timezone", "Give an IANA time zone such as Europe/Berlin."))
    for channel, window in changes.get("quiet_hours", {}).items():
        problems += _window_problems(channel, window)
    problems += check_attribute_schema(changes.get("attribute_schema", {}), "attribute_schema")
    return problems


def _window_problems(channel: str, window: Mapping[str, str] | None) -> list[Problem]:
    path = f"quiet_hours.{channel}"
    if channel not in CHANNELS:
        return [Problem(path, "unknown_channel", f"The channels are {', '.join(CHANNELS)}.")]
    if window is not None:
        read = read_window({channel: window}, channel)
        if read is not None and read.start == read.end:
            return [Problem(path, "whole_day", "Equal times would forbid the whole day; give two times, or null for no quiet hours.")]
    return []


def _merged(organization: Organization, changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(changes)
    if "quiet_hours" in changes:
        hours = organization.quiet_hours | changes["quiet_hours"]
        merged["quiet_hours"] = {channel: window for channel, window in hours.items() if window is not None}
    return merged


def _set(organization: Organization, name: str, value: Any) -> bool:
    if getattr(organization, name) == value:
        return False
    setattr(organization, name, value)
    return True


def _changed(caller: Caller, organization_id: UUID, changed: list[str]) -> NewEntry:
    return NewEntry("organization.changed", "organization", str(organization_id), caller.actor, {"fields": sorted(changed)})
