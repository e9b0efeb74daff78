"""Who sends a request: by API key (`Authorization: Bearer ls_…`) or by the console's session cookie."""

import hmac
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from starlette.requests import HTTPConnection

from api.auth.tokens import KEY_PREFIX, token_hash
from models.domain.audit import Actor
from models.domain.errors import NotAllowed, NotAuthenticated
from models.domain.permissions import permissions_of
from models.store import access
from models.store.session import Database

SESSION_COOKIE: Final = "leadstats_session"
CSRF_COOKIE: Final = "leadstats_csrf"
CSRF_HEADER: Final = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
NO_PROOF = NotAuthenticated("Send an API key as `Authorization: Bearer ls_…`, or log in at POST /v1/session.")


@dataclass(frozen=True)
class Identity:
    """Somebody who has proved who they are. `session_id` is None for an API key."""

    organization_id: UUID
    suspended: bool
    actor: Actor
    user_id: UUID | None
    role: str | None
    permissions: frozenset[str]
    session_id: UUID | None = None

    @property
    def actor_id(self) -> UUID:
        assert self.actor.id is not None  # only `system` has none
        return self.actor.id


async def identify(request: HTTPConnection, database: Database) -> Identity:
    """Whose request this is. The answer is kept with the request, so that asking again costs nothing.

    Raises:
        NotAuthenticated: no valid key or session.
        NotAllowed: an unsafe method with a cookie but without the CSRF token.
    """
    known: Identity | None = getattr(request.state, "identity", None)
    if known is None:
        known = await _identify(request, database)
        request.state.identity = known
    return known


async def _identify(request: HTTPConnection, database: Database) -> Identity:
    if (authorization := request.headers.get("authorization")) is not None:
        return await _by_key(authorization, database)
    if token := request.cookies.get(SESSION_COOKIE):
        return await _by_session(request, token, database)
    raise NO_PROOF


async def _by_key(authorization: str, database: Database) -> Identity:
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer" or not secret.startswith(KEY_PREFIX):
        raise NO_PROOF
    async with database.outside() as session:
        key = await access.authenticate_api_key(session, token_hash(secret.strip()))
    if key is None:
        raise NotAuthenticated("This API key is unknown, expired or revoked.")
    return Identity(
        organization_id=key.organization_id,
        suspended=key.organization_status != "active",
        actor=Actor("api_key", key.api_key_id),
        user_id=key.created_by,
        role=None,
        permissions=_key_permissions(key),
    )


def _key_permissions(key: access.KnownKey) -> frozenset[str]:
    """A key never does more than the member who made it may do now."""
    scopes = frozenset(key.scopes)
    return scopes if key.created_by is None else scopes & permissions_of(key.creator_role or "")


async def _by_session(request: HTTPConnection, token: str, database: Database) -> Identity:
    async with database.outside() as session:
        found = await access.authenticate_session(session, token_hash(token))
    if found is None:
        raise NotAuthenticated("This session has ended; log in again at POST /v1/session.")
    if request.scope["method"] not in SAFE_METHODS:
        _check_csrf(request.headers.get(CSRF_HEADER), found.csrf_hash)
    return Identity(
        organization_id=found.organization_id,
        suspended=found.organization_status != "active",
        actor=Actor("user", found.user_id),
        user_id=found.user_id,
        role=found.role,
        permissions=permissions_of(found.role),
        session_id=found.session_id,
    )


def _check_csrf(header: str | None, expected: bytes) -> None:
    """A page of another site can make a browser send our cookie, but cannot read the token."""
    if header is None or not hmac.compare_digest(token_hash(header), expected):
        raise NotAllowed(f"Send the cookie {CSRF_COOKIE} as the header {CSRF_HEADER} with every request that changes something.")
