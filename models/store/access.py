"""Organizations, people, sessions and API keys.

Functions that take a plain `AsyncSession` run in `Database.outside()`: no organization is known yet, and they call the
functions of `models/migrations/versions/0001_security.sql`, each of which answers one question.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.domain.errors import NotFound
from models.store.session import OrganizationSession
from models.tables.access import ApiKey, Organization
from models.tables.base import new_id


@dataclass(frozen=True)
class KnownKey:
    """A valid API key's owner. `creator_role` is None when its maker is no longer a member."""

    api_key_id: UUID
    organization_id: UUID
    organization_status: str
    scopes: list[str]
    created_by: UUID | None
    creator_role: str | None


@dataclass(frozen=True)
class KnownSession:
    """A valid console session's owner."""

    session_id: UUID
    organization_id: UUID
    organization_status: str
    user_id: UUID
    role: str
    csrf_hash: bytes


@dataclass(frozen=True)
class Login:
    user_id: UUID
    password_hash: str
    disabled: bool


@dataclass(frozen=True)
class LoginOrganization:
    organization_id: UUID
    slug: str
    name: str
    role: str


async def authenticate_api_key(session: AsyncSession, secret_hash: bytes) -> KnownKey | None:
    """Whose key this is, unless it is unknown, revoked or expired, or its maker disabled. Notes its use, at most once a minute."""
    row = (await session.execute(text("SELECT * FROM authenticate_api_key(:hash)"), {"hash": secret_hash})).mappings().one_or_none()
    return None if row is None else KnownKey(**row)


async def authenticate_session(session: AsyncSession, token_hash: bytes) -> KnownSession | None:
    """Whose session this is, unless it is unknown or expired, or its user disabled or no longer a member."""
    row = (await session.execute(text("SELECT * FROM authenticate_session(:hash)"), {"hash": token_hash})).mappings().one_or_none()
    return None if row is None else KnownSession(**row)


async def find_login(session: AsyncSession, email: str) -> Login | None:
    """The person with this email, in whatever organization."""
    row = (await session.execute(text("SELECT * FROM find_login(:email)"), {"email": email})).mappings().one_or_none()
    return None if row is None else Login(**row)


async def login_organizations(session: AsyncSession, user_id: UUID) -> list[LoginOrganization]:
    """Where this person is a member, by slug."""
    rows = await session.execute(text("SELECT * FROM login_organizations(:user_id)"), {"user_id": user_id})
    return [LoginOrganization(**row) for row in rows.mappings()]


async def organization_id_by_slug(session: AsyncSession, slug: str) -> UUID | None:
    found: UUID | None = (await session.execute(text("SELECT organization_id_by_slug(:slug)"), {"slug": slug})).scalar_one()
    return found


async def organizations_to_route(session: AsyncSession) -> list[UUID]:
    """Organizations in which something waits to be routed or told, or may have become true by time alone."""
    return list((await session.execute(text("SELECT organizations_to_route()"))).scalars())


async def organizations_with_unstarted(session: AsyncSession, older_than: timedelta) -> list[UUID]:
    """The organizations in which a campaign, run, publish plan or operation may have been waiting for its workflow for longer than
    this."""
    # The second names organizations with publish plans under way, among others: to look there in vain costs one query.
    query = """SELECT organizations_with_unstarted(:older_than) UNION SELECT organizations_to_route()
               UNION SELECT organizations_operating()"""
    rows = await session.execute(text(query), {"older_than": older_than})
    return list(rows.scalars())


async def insert_organization(session: OrganizationSession, name: str, slug: str) -> None:
    """The session's organization exists. A slug that is taken violates a unique constraint."""
    session.add(Organization(id=session.organization_id, name=name, slug=slug))
    await session.flush()


async def get_organization(session: OrganizationSession, *, lock: bool = False) -> Organization:
    """The session's organization; `lock` keeps others from changing it until the transaction ends."""
    found = await session.get(Organization, session.organization_id, with_for_update=lock or None)
    if found is None:
        raise NotFound("organization")
    return found


async def insert_user(session: OrganizationSession, user_id: UUID, email: str, password_hash: str) -> None:
    """The user exists. RETURNING is not used: they become visible with their membership."""
    await session.execute(
        text("INSERT INTO users (id, email, password_hash) VALUES (:id, :email, :password_hash)"),
        {"id": user_id, "email": email, "password_hash": password_hash},
    )


async def insert_membership(session: OrganizationSession, user_id: UUID, role: str, name: str = "") -> bool:
    """The user is a member, called `name` here; False when they were one before (name and role are then unchanged)."""
    added = await session.execute(
        text(
            "INSERT INTO memberships (id, organization_id, user_id, name, role) VALUES (:id, :o, :user_id, :name, :role)"
            " ON CONFLICT (organization_id, user_id) DO NOTHING RETURNING 1"
        ),
        {"id": new_id(), "o": session.organization_id, "user_id": user_id, "name": name, "role": role},
    )
    return added.one_or_none() is not None


@dataclass(frozen=True)
class Member:
    """A person in this organization. `id` is the user's id, `name` what this organization calls them."""

    id: UUID
    email: str
    name: str
    role: str
    disabled_at: datetime | None
    joined_at: datetime


_MEMBERS = """
    SELECT u.id, u.email, m.name, m.role, u.disabled_at, m.created_at AS joined_at
    FROM memberships m JOIN users u ON u.id = m.user_id
    WHERE m.organization_id = :o
"""


async def list_members(session: OrganizationSession, limit: int, after: UUID | None = None) -> list[Member]:
    """At most `limit` members, by id, after the id `after`."""
    query = text(_MEMBERS + " AND (CAST(:after AS uuid) IS NULL OR u.id > :after) ORDER BY u.id LIMIT :limit")
    rows = await session.execute(query, {"o": session.organization_id, "after": after, "limit": limit})
    return [Member(**row) for row in rows.mappings()]


async def get_member(session: OrganizationSession, user_id: UUID) -> Member:
    row = (
        (await session.execute(text(_MEMBERS + " AND u.id = :id"), {"o": session.organization_id, "id": user_id})).mappings().one_or_none()
    )
    if row is None:
        raise NotFound("member")
    return Member(**row)


async def member_addresses(session: OrganizationSession, user_ids: Collection[UUID]) -> dict[UUID, str]:
    """The email of each of these users who is a member now and may log in."""
    query = text(_MEMBERS + " AND u.id = ANY(CAST(:ids AS uuid[])) AND u.disabled_at IS NULL")
    rows = await session.execute(query, {"o": session.organization_id, "ids": list(user_ids)})
    return {row.id: row.email for row in rows}


async def owner_ids(session: OrganizationSession) -> list[UUID]:
    """The users who are owners, locked, so that two removals cannot each leave the other as the last."""
    query = text("SELECT user_id FROM memberships WHERE organization_id = :o AND role = 'owner' ORDER BY user_id FOR UPDATE")
    return list((await session.execute(query, {"o": session.organization_id})).scalars())


async def set_role(session: OrganizationSession, user_id: UUID, role: str) -> None:
    await session.execute(
        text("UPDATE memberships SET role = :role WHERE organization_id = :o AND user_id = :user_id"),
        {"o": session.organization_id, "user_id": user_id, "role": role},
    )


async def delete_membership(session: OrganizationSession, user_id: UUID) -> list[UUID]:
    """The user is no member: their sessions here are gone and the API keys they made revoked. Gives those keys' ids."""
    parameters = {"o": session.organization_id, "user_id": user_id}
    await session.execute(text("DELETE FROM sessions WHERE organization_id = :o AND user_id = :user_id"), parameters)
    revoked = await session.execute(
        text(
            "UPDATE api_keys SET revoked_at = now() WHERE organization_id = :o AND created_by = :user_id"
            " AND revoked_at IS NULL RETURNING id"
        ),
        parameters,
    )
    await session.execute(text("DELETE FROM memberships WHERE organization_id = :o AND user_id = :user_id"), parameters)
    return list(revoked.scalars())


async def insert_session(session: OrganizationSession, user_id: UUID, token_hash: bytes, csrf_hash: bytes, lifetime: timedelta) -> UUID:
    """A console session that ends after `lifetime` by the database's clock; the user's expired ones are gone."""
    identifier = new_id()
    parameters = {"o": session.organization_id, "user_id": user_id}
    await session.execute(text("DELETE FROM sessions WHERE organization_id = :o AND user_id = :user_id AND expires_at < now()"), parameters)
    await session.execute(
        text(
            "INSERT INTO sessions (id, organization_id, user_id, token_hash, csrf_hash, expires_at, last_seen_at)"
            " VALUES (:id, :o, :user_id, :token_hash, :csrf_hash, now() + :lifetime, now())"
        ),
        parameters | {"id": identifier, "token_hash": token_hash, "csrf_hash": csrf_hash, "lifetime": lifetime},
    )
    return identifier


async def delete_session(session: OrganizationSession, session_id: UUID) -> None:
    await session.execute(
        text("DELETE FROM sessions WHERE organization_id = :o AND id = :id"), {"o": session.organization_id, "id": session_id}
    )


async def insert_api_key(session: OrganizationSession, key: ApiKey) -> None:
    session.add(key)
    await session.flush()


async def list_api_keys(session: OrganizationSession, limit: int, after: UUID | None = None) -> list[ApiKey]:
    """At most `limit` keys, oldest first, revoked ones included, after the id `after`."""
    query = text(
        "SELECT * FROM api_keys WHERE organization_id = :o AND (CAST(:after AS uuid) IS NULL OR id > :after) ORDER BY id LIMIT :limit"
    )
    rows = await session.execute(query, {"o": session.organization_id, "after": after, "limit": limit})
    return [_api_key(row) for row in rows.mappings()]


def _api_key(row: Any) -> ApiKey:
    return ApiKey(**row)


async def making_api_key(session: OrganizationSession, key_id: UUID) -> ApiKey | None:
    """The key with which another is to be made, which is not revoked before this transaction ends; None when it has been."""
    query = text("SELECT * FROM api_keys WHERE organization_id = :o AND id = :id AND revoked_at IS NULL FOR SHARE")
    row = (await session.execute(query, {"o": session.organization_id, "id": key_id})).mappings().one_or_none()
    return None if row is None else _api_key(row)


_REVOKE = text(
    """
    WITH RECURSIVE made AS (
      SELECT id FROM api_keys WHERE organization_id = :o AND id = :id
      UNION SELECT k.id FROM api_keys k JOIN made m ON k.made_by = m.id WHERE k.organization_id = :o)
    UPDATE api_keys SET revoked_at = now()
    WHERE organization_id = :o AND id IN (SELECT id FROM made) AND revoked_at IS NULL RETURNING id
    """
)


async def revoke_api_key(session: OrganizationSession, key_id: UUID) -> list[UUID]:
    """The key is revoked, and so are those made with it, and with those. Gives the ids of the ones that were not before.

    Raises:
        NotFound: there is no such key in this organization.
    """
    key = await session.get(ApiKey, key_id, with_for_update=True)
    if key is None or key.organization_id != session.organization_id:
        raise NotFound("API key")
    revoked: list[UUID] = []
    # Again until none is left: one may be made while its maker is waited for (`making_api_key`).
    while found := list((await session.execute(_REVOKE, {"o": session.organization_id, "id": key_id})).scalars()):
        revoked += found
    return revoked
