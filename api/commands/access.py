"""Logging in and out, API keys, members."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from api.auth.passwords import hash_password, verify_password
from api.auth.tokens import new_key, new_token, token_hash
from api.dependencies import Caller, Services
from models.domain.audit import Actor, NewEntry
from models.domain.errors import Conflict, Invalid, NotAllowed, NotAuthenticated, Problem, TooManyAttempts
from models.domain.permissions import PERMISSIONS, Role, may_assign
from models.settings import Settings
from models.store import access, audit, login_attempts
from models.store.access import LoginOrganization, Member
from models.store.login_attempts import Attempts
from models.store.session import OrganizationSession
from models.tables.access import ApiKey
from models.tables.base import new_id

SESSION_LIFETIME: Final = timedelta(hours=12)
ATTEMPT_WINDOW: Final = timedelta(minutes=15)
ATTEMPTS_PER_EMAIL: Final = 5
ATTEMPTS_PER_ADDRESS: Final = 50
_WRONG = NotAuthenticated("Email, password or organization is wrong.")


@dataclass(frozen=True)
class StartedSession:
    """A console session; `token` and `csrf_token` are shown once, as cookies."""

    session_id: UUID
    user_id: UUID
    organization: LoginOrganization
    token: str
    csrf_token: str


async def log_in(services: Services, email: str, password: str, slug: str | None, address: str) -> StartedSession:
    """A session of the person with this email in the organization `slug`, or in their only one.

    An unknown email, a wrong password and a wrong organization get the same answer after the same work. `address` is
    the client's; it is kept only as a keyed hash.

    Raises:
        TooManyAttempts: more than 5 failures for this email, or 50 from this address, within 15 minutes.
        NotAuthenticated: wrong.
        Invalid: the password is right, but the person belongs to several organizations and named none.
    """
    by_email, by_address = _subjects(services.settings, email, address)
    async with services.database.outside() as session:
        wait = await login_attempts.note_attempt(session, [by_email, by_address], ATTEMPT_WINDOW)
        login = None if wait is not None else await access.find_login(session, email)
    if wait is not None:
        raise TooManyAttempts("Too many failed logins; wait before you try again.", wait)
    right = await verify_password(password, None if login is None else login.password_hash)
    if login is None or not right or login.disabled:
        raise _WRONG
    organization = await _organization(services, login.user_id, slug, by_email, by_address)
    return await _start_session(services, login.user_id, organization)


def _subjects(settings: Settings, email: str, address: str) -> tuple[Attempts, Attempts]:
    return (
        Attempts(settings.keyed_hash("login-attempts", "email", email.strip().lower()), ATTEMPTS_PER_EMAIL),
        Attempts(settings.keyed_hash("login-attempts", "address", address), ATTEMPTS_PER_ADDRESS),
    )


async def _organization(services: Services, user_id: UUID, slug: str | None, by_email: Attempts, by_address: Attempts) -> LoginOrganization:
    async with services.database.outside() as session:
        await login_attempts.forget_attempts(session, by_email.subject_hash, by_address.subject_hash)
        organizations = await access.login_organizations(session, user_id)
    if slug is None and len(organizations) > 1:
        known = ", ".join(organization.slug for organization in organizations)
        raise Invalid.field("organization", "required", f"Name the organization; you belong to {known}.")
    for organization in organizations:
        if slug is None or organization.slug == slug:
            return organization
    raise _WRONG


async def _start_session(services: Services, user_id: UUID, organization: LoginOrganization) -> StartedSession:
    token, csrf_token = new_token(), new_token()
    async with services.database.organization(organization.organization_id) as session:
        session_id = await access.insert_session(session, user_id, token_hash(token), token_hash(csrf_token), SESSION_LIFETIME)
        await audit.append(session, [NewEntry("session.started", "session", str(session_id), Actor("user", user_id))])
    return StartedSession(session_id, user_id, organization, token, csrf_token)


async def log_out(caller: Caller) -> None:
    """The caller's session has ended. An API key has none, and stays as it is."""
    if caller.session_id is None:
        return
    async with caller.session() as session:
        await access.delete_session(session, caller.session_id)
        await audit.append(session, [NewEntry("session.ended", "session", str(caller.session_id), caller.actor)])


@dataclass(frozen=True)
class CreatedKey:
    """`secret` is shown once."""

    key: ApiKey
    secret: str


async def create_api_key(caller: Caller, name: str, scopes: Sequence[str], expires_at: datetime | None) -> CreatedKey:
    """A key with these scopes, none of which the caller lacks. `expires_at` is aware, None for never. A key made with a key expires
    with that one at the latest.

    Raises:
        Invalid: a scope is unknown, or more than the caller may do, or the key would outlive the one it is made with.
        NotAuthenticated: the key that it is made with has just been revoked.
    """
    _check_known(scopes)
    if beyond := sorted(set(scopes) - caller.permissions):
        raise Invalid.field("scopes", "beyond_yours", f"You cannot give what you do not have: {', '.join(beyond)}.")
    new = new_key()
    key = ApiKey(
        organization_id=caller.organization_id,
        name=name,
        prefix=new.prefix,
        secret_hash=new.secret_hash,
        scopes=sorted(set(scopes)),
        created_by=caller.user_id,
        expires_at=expires_at,
    )
    async with caller.session() as session:
        if caller.actor.kind == "api_key" and caller.actor.id is not None:
            await _bind_to_maker(session, key, caller.actor.id)
        await access.insert_api_key(session, key)
        await audit.append(session, [NewEntry("api_key.created", "api_key", str(key.id), caller.actor, {"scopes": key.scopes})])
    return CreatedKey(key, new.secret)


async def _bind_to_maker(session: OrganizationSession, key: ApiKey, maker_id: UUID) -> None:
    """Otherwise a key that leaked once could make others, which would work when it has expired or is revoked."""
    maker = await access.making_api_key(session, maker_id)
    if maker is None:
        raise NotAuthenticated("This API key is revoked.")
    key.made_by = maker.id
    if maker.expires_at is not None and key.expires_at is not None and key.expires_at > maker.expires_at:
        message = f"A key made with a key does not outlive it; yours expires at {maker.expires_at.isoformat()}."
        raise Invalid.field("expires_at", "beyond_yours", message)
    key.expires_at = key.expires_at or maker.expires_at


def _check_known(scopes: Sequence[str]) -> None:
    message = "There is no such scope; docs/permissions.md lists them."
    unknown = [Problem(f"scopes[{index}]", "unknown_scope", message) for index, scope in enumerate(scopes) if scope not in PERMISSIONS]
    if unknown:
        raise Invalid(unknown)


async def revoke_api_key(caller: Caller, key_id: UUID) -> None:
    """The key does not work any more, nor do those that were made with it. Safe to repeat.

    Raises:
        NotFound: there is no such key.
    """
    async with caller.session() as session:
        revoked = await access.revoke_api_key(session, key_id)
        if revoked:
            await audit.append(session, [_revoked(caller, each, key_id) for each in sorted(revoked, key=lambda each: each != key_id)])


def _revoked(caller: Caller, key_id: UUID, because_of: UUID) -> NewEntry:
    details = {} if key_id == because_of else {"made_by": str(because_of)}
    return NewEntry("api_key.revoked", "api_key", str(key_id), caller.actor, details)


async def add_member(caller: Caller, email: str, name: str, role: Role, password: str) -> Member:
    """A person with this email is a member, called `name` here. Somebody who has a login already keeps their password,
    and nothing that another organization knows of them is told.

    Raises:
        NotAllowed: only an owner makes owners.
        Conflict: they are a member.
    """
    _check_may_assign(caller, role)
    password_hash = await hash_password(password)
    async with caller.services.database.outside() as outside:
        login = await access.find_login(outside, email)
    user_id = new_id() if login is None else login.user_id
    async with caller.session() as session:
        if login is None:
            await access.insert_user(session, user_id, email, password_hash)
        if not await access.insert_membership(session, user_id, role, name):
            raise Conflict("This person is a member already; change their role instead.")
        member = await access.get_member(session, user_id)
        await audit.append(session, [NewEntry("member.added", "user", str(user_id), caller.actor, {"role": role})])
    return member


async def change_role(caller: Caller, user_id: UUID, role: Role) -> Member:
    """The member has this role.

    Raises:
        NotFound: not a member. NotAllowed: only an owner changes owners. Conflict: the last owner stays one.
    """
    _check_may_assign(caller, role)
    async with caller.session() as session:
        member = await _member_in_reach(session, caller, user_id)
        if member.role != role:
            await access.set_role(session, user_id, role)
            details = {"from": member.role, "to": role}
            await audit.append(session, [NewEntry("member.role_changed", "user", str(user_id), caller.actor, details)])
            member = await access.get_member(session, user_id)
    return member


async def remove_member(caller: Caller, user_id: UUID) -> None:
    """The person is no member; their sessions here have ended, and the API keys they made are revoked.

    Raises:
        NotFound: not a member. NotAllowed: only an owner removes owners. Conflict: the last owner stays.
    """
    async with caller.session() as session:
        await _member_in_reach(session, caller, user_id)
        revoked = await access.delete_membership(session, user_id)
        details = {"revoked_api_keys": revoked}
        await audit.append(session, [NewEntry("member.removed", "user", str(user_id), caller.actor, details)])


def _check_may_assign(caller: Caller, role: str) -> None:
    if not may_assign(_standing(caller), role):
        raise NotAllowed("Only an owner makes, changes or removes owners.")


def _standing(caller: Caller) -> str:
    """The role that counts: a key's owner is never more than an admin, so that a leaked key cannot take over."""
    return caller.role or Role.ADMIN


async def _member_in_reach(session: OrganizationSession, caller: Caller, user_id: UUID) -> Member:
    """The member, if the caller may change them and they are not the last owner."""
    owners = await access.owner_ids(session)
    member = await access.get_member(session, user_id)
    _check_may_assign(caller, member.role)
    if owners == [user_id]:
        raise Conflict("This is the last owner; make somebody else an owner first.")
    return member
