"""`/v1/session`: logging in to the console, who one is, logging out."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.auth.identity import CSRF_COOKIE, SESSION_COOKIE
from api.commands import access as commands
from api.dependencies import Caller, ServicesOf, authenticate
from models.domain.permissions import permissions_of
from models.store import access

router = APIRouter(prefix="/session", tags=["session"])


class LoginRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: str = Field(min_length=3, max_length=254, examples=["alice@example.com"])
    password: str = Field(min_length=1, max_length=1024, examples=["correct horse battery staple"])
    organization: str | None = Field(
        default=None, max_length=63, description="The organization's slug; needed when you belong to several.", examples=["acme"]
    )


class SessionOrganization(BaseModel):
    id: UUID
    name: str
    slug: str
    status: str = Field(examples=["active"])


class SessionUser(BaseModel):
    id: UUID
    email: str
    name: str
    role: str


class SessionResponse(BaseModel):
    """Who is asking. `user` is null for an API key; `csrf_token` is given at login only."""

    organization: SessionOrganization
    user: SessionUser | None
    permissions: list[str]
    csrf_token: str | None = None


@router.post("", status_code=201)
async def log_in(body: LoginRequest, request: Request, response: Response, services: ServicesOf) -> SessionResponse:
    """Start a session: sets the cookies `leadstats_session` (unreadable to scripts) and `leadstats_csrf`."""
    address = "unknown" if request.client is None else request.client.host
    started = await commands.log_in(services, body.email, body.password, body.organization, address)
    _set_cookies(response, started, secure=services.settings.secure_cookies)
    async with services.database.organization(started.organization.organization_id) as session:
        member = await access.get_member(session, started.user_id)
        organization = await access.get_organization(session)
    return SessionResponse(
        organization=SessionOrganization.model_validate(organization, from_attributes=True),
        user=SessionUser.model_validate(member, from_attributes=True),
        permissions=sorted(permissions_of(member.role)),
        csrf_token=started.csrf_token,
    )


def _set_cookies(response: Response, started: commands.StartedSession, *, secure: bool) -> None:
    lifetime = int(commands.SESSION_LIFETIME.total_seconds())
    response.set_cookie(SESSION_COOKIE, started.token, lifetime, secure=secure, httponly=True, samesite="lax")
    # The console reads this one and sends it back as a header.
    response.set_cookie(CSRF_COOKIE, started.csrf_token, lifetime, secure=secure, httponly=False, samesite="lax")
    response.headers["Cache-Control"] = "no-store"


@router.get("")
async def show(caller: Annotated[Caller, authenticate()]) -> SessionResponse:
    """Who the caller is, and what they may do."""
    async with caller.session() as session:
        organization = await access.get_organization(session)
        member = await access.get_member(session, caller.actor.id) if caller.actor.kind == "user" and caller.actor.id else None
    return SessionResponse(
        organization=SessionOrganization.model_validate(organization, from_attributes=True),
        user=None if member is None else SessionUser.model_validate(member, from_attributes=True),
        permissions=sorted(caller.permissions),
    )


@router.delete("", status_code=204)
async def log_out(response: Response, caller: Annotated[Caller, authenticate()]) -> None:
    """End the session. An API key is not affected."""
    await commands.log_out(caller)
    response.delete_cookie(SESSION_COOKIE)
    response.delete_cookie(CSRF_COOKIE)
