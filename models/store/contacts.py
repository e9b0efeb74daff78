"""Contacts: read, upsert, change.

Values come in normalised (`models.domain.contact`, `models.addresses`). A contact has an external id, an email, or both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Select, Text, cast, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased
from sqlmodel import col

from models.domain.errors import Conflict, Invalid, NotFound
from models.store.rowset import rowset
from models.store.run_variables import variables_of
from models.store.segment_sql import CompiledRule
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.contacts import Contact

_ATTEMPTS = 5  # of an upsert that meets others for the same person
_c: Any = aliased(Contact, name="c")  # the alias that compiled rules speak of


@dataclass(frozen=True)
class ContactFilter:
    """Which contacts; None means any. `segment` is a compiled rule."""

    email: str | None = None
    external_id: str | None = None
    phone: str | None = None
    tag: str | None = None
    segment: CompiledRule | None = None


@dataclass(frozen=True)
class Saved:
    """`changed` names the fields that have another value now."""

    contact: Contact
    created: bool
    changed: tuple[str, ...]


async def list_contacts(session: OrganizationSession, wanted: ContactFilter, limit: int, after: UUID | None = None) -> Sequence[Contact]:
    """At most `limit` contacts, in the order of their ids (oldest first), after the id `after`."""
    query = _matching(select(_c), session, wanted).order_by(_c.id).limit(limit)
    if after is not None:
        query = query.where(_c.id > after)
    return (await session.scalars(query)).all()


async def count(session: OrganizationSession, wanted: ContactFilter) -> int:
    """How many contacts match."""
    found: int = (await session.execute(_matching(select(func.count()).select_from(_c), session, wanted))).scalar_one()
    return found


def _matching(query: Select[Any], session: OrganizationSession, wanted: ContactFilter) -> Select[Any]:
    query = query.where(_c.organization_id == session.organization_id)
    if wanted.email is not None:
        query = query.where(_c.email_key == func.lower(wanted.email))
    if wanted.external_id is not None:
        query = query.where(_c.external_id == wanted.external_id)
    if wanted.phone is not None:
        query = query.where(_c.phone == wanted.phone)
    if wanted.tag is not None:
        query = query.where(_c.tags.op("@>")(cast([wanted.tag], ARRAY(Text))))
    if wanted.segment is not None:
        query = query.where(text(wanted.segment.sql).bindparams(**wanted.segment.parameters))
    return query


async def get(session: OrganizationSession, contact_id: UUID) -> Contact:
    """The contact.

    Raises:
        NotFound: the organization has no such contact.
    """
    return await _find(session, contact_id)


async def _find(session: OrganizationSession, contact_id: UUID, *, lock: bool = False) -> Contact:
    query = select(Contact).where(col(Contact.id) == contact_id, col(Contact.organization_id) == session.organization_id)
    query = query.with_for_update(key_share=True) if lock else query  # runs that begin meanwhile only name it
    found = (await session.scalars(query.execution_options(populate_existing=True))).one_or_none()
    if found is None:
        raise NotFound("contact", contact_id)
    return found


async def attribute_schema(session: OrganizationSession) -> dict[str, Any]:
    """The organization's custom attributes and their types: `{"plan": {"type": "string"}}`."""
    query = text("SELECT attribute_schema FROM organizations WHERE id = :o")
    schema: dict[str, Any] = (await session.execute(query, {"o": session.organization_id})).scalar_one()
    return schema


async def count_holding(session: OrganizationSession, keys: Sequence[str]) -> dict[str, int]:
    """How many contacts have a value for each of these attributes; those that nobody has are left out. One statement."""
    query = text("""
        SELECT asked.key, count(*) FROM contacts c CROSS JOIN unnest(CAST(:keys AS text[])) AS asked (key)
        WHERE c.organization_id = :o AND c.attributes ? asked.key GROUP BY asked.key ORDER BY asked.key
    """)
    rows = await session.execute(query, {"o": session.organization_id, "keys": list(keys)})
    return {str(row[0]): int(row[1]) for row in rows}


async def upsert(session: OrganizationSession, values: Mapping[str, Any]) -> Saved:
    """The contact with this external id or email has these values; made when there is none. Safe to repeat.

    Fields that are not given stay as they are; attributes are merged by key, where None removes one. Two upserts of the
    same person at the same time give one contact.

    Raises:
        Conflict: external id and email belong to two contacts.
    """
    for _ in range(_ATTEMPTS):
        found = await _identify(session, values)
        if found is None:
            created = await _create(session, values)
            if created is not None:
                return Saved(created, True, tuple(sorted(values)))
        else:
            try:
                async with session.begin_nested():
                    return await _apply(session, found, values)
            except IntegrityError:
                continue  # somebody else has just taken the external id or the email: look again
    raise Conflict("Other requests are changing the same contact; send this one again.")


async def _identify(session: OrganizationSession, values: Mapping[str, Any]) -> Contact | None:
    """The contact these values speak of, locked."""
    external_id, email = values.get("external_id"), values.get("email")
    same: list[ColumnElement[bool]] = []
    if external_id is not None:
        same.append(col(Contact.external_id) == external_id)
    if email is not None:
        same.append(col(Contact.email_key) == func.lower(email))
    query = select(Contact).where(col(Contact.organization_id) == session.organization_id, or_(*same))
    query = query.order_by(col(Contact.id)).with_for_update(key_share=True).execution_options(populate_existing=True)
    found = (await session.scalars(query)).all()
    if len(found) > 1:
        raise Conflict("external_id belongs to one contact and email to another; correct one of the two.")
    if found and external_id is not None and found[0].external_id not in (None, external_id):
        raise Conflict("email belongs to a contact with another external_id; correct external_id or email.")
    return found[0] if found else None


async def _create(session: OrganizationSession, values: Mapping[str, Any]) -> Contact | None:
    """The new contact, or None when somebody else made one with this external id or email meanwhile."""
    attributes = {key: value for key, value in values.get("attributes", {}).items() if value is not None}
    row = Contact(organization_id=session.organization_id, **(dict(values) | {"attributes": attributes}))
    query = insert(Contact).values(**row.model_dump(exclude={"email_key"})).on_conflict_do_nothing().returning(Contact)
    return (await session.scalars(query)).one_or_none()


async def change(session: OrganizationSession, contact_id: UUID, values: Mapping[str, Any]) -> Saved:
    """The contact has these values; the others stay. Attributes are merged by key, where None removes one.

    Raises:
        NotFound: the organization has no such contact.
        Conflict: another contact has the external id or the email.
        Invalid: neither external id nor email would be left.
    """
    contact = await _find(session, contact_id, lock=True)
    try:
        async with session.begin_nested():
            saved = await _apply(session, contact, values)
    except IntegrityError as error:
        field = "external_id" if "uq_contacts_external_id" in str(error.orig) else "email"
        raise Conflict(f"Another contact has this {field}.") from None
    return saved


async def _apply(session: OrganizationSession, contact: Contact, values: Mapping[str, Any]) -> Saved:
    changed = []
    for name, value in values.items():
        if name == "attributes":
            merged = {**contact.attributes, **value}
            value = {key: kept for key, kept in merged.items() if kept is not None}
        if getattr(contact, name) != value:
            setattr(contact, name, value)
            changed.append(name)
    if contact.external_id is None and contact.email is None:
        raise Invalid.field("email", "no_identity", "Leave the contact an email or an external_id.")
    if changed:
        contact.updated_at = utc_now()
        await session.flush()
    return Saved(contact, False, tuple(sorted(changed)))


# --- many at once, as a journey's step changes them ---------------------------------------------------------------------


@dataclass
class Profile:
    """What a journey's step may change of a contact, locked."""

    contact_id: UUID
    attributes: dict[str, Any]
    tags: list[str]
    changed: bool = False

    def set(self, attributes: Mapping[str, Any], tags: Sequence[str]) -> list[str]:
        """The attributes are merged by key, where None removes one; these are the tags. Answers the fields with another value now."""
        fields = [f"attributes.{key}" for key, value in attributes.items() if self.attributes.get(key) != value]
        fields += ["tags"] if sorted(self.tags) != sorted(tags) else []
        merged = {**self.attributes, **attributes}
        self.attributes = {key: value for key, value in merged.items() if value is not None}
        self.tags = list(tags)
        self.changed = self.changed or bool(fields)
        return sorted(fields)


@dataclass(frozen=True)
class Profiles:
    by_contact: Mapping[UUID, Profile]  # contacts that are gone are left out
    variables: Mapping[UUID, Mapping[str, Any]]  # by run


_PROFILES = text(
    """
    SELECT c.id AS contact_id, c.attributes, c.tags FROM contacts c
    WHERE c.organization_id = :o AND c.id = ANY(CAST(:ids AS uuid[])) ORDER BY c.id FOR NO KEY UPDATE
    """
)


async def lock_profiles(session: OrganizationSession, runs: Mapping[UUID, UUID]) -> Profiles:
    """The contacts of these runs (run to contact), locked in the order of their ids, and the runs' variables."""
    found = await session.execute(_PROFILES, {"o": session.organization_id, "ids": list(set(runs.values()))})
    profiles = {row.contact_id: Profile(row.contact_id, row.attributes, list(row.tags)) for row in found}
    return Profiles(profiles, await variables_of(session, list(runs)))


_SAVE_PROFILES = text(
    """
    UPDATE contacts c SET attributes = a.attributes, tags = a.tags, updated_at = clock_timestamp()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(contact_id uuid, attributes jsonb, tags text[])
    WHERE c.organization_id = :o AND c.id = a.contact_id
    """
)


async def save_profiles(session: OrganizationSession, profiles: Sequence[Profile]) -> None:
    """The contacts have these attributes and tags. One statement."""
    if profiles:
        rows = [{"contact_id": one.contact_id, "attributes": one.attributes, "tags": one.tags} for one in profiles]
        await session.execute(_SAVE_PROFILES, {"o": session.organization_id, "rows": rowset(rows)})
