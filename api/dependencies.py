"""What routes ask for: the services of the process, and the caller with their permission."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from temporalio.client import Client

from api.auth.identity import SESSION_COOKIE, Identity, identify
from api.parameters import refuse_unknown_parameters
from api.processor import Processor
from models.domain.audit import Actor
from models.domain.errors import NotAllowed
from models.domain.permissions import PERMISSIONS, only_reads
from models.settings import Settings
from models.store.session import Database, OrganizationSession

# Only for the OpenAPI document; `identify` does the checking.
SECURITY = (
    HTTPBearer(scheme_name="apiKey", description="An API key: `Bearer ls_…`.", auto_error=False),
    APIKeyCookie(
        name=SESSION_COOKIE,
        scheme_name="session",
        description="The console's session. Unsafe methods also need the header `X-CSRF-Token`.",
        auto_error=False,
    ),
)


@dataclass(frozen=True)
class Services:
    """Built once at the composition root (`api.app.create_app`'s caller)."""

    settings: Settings
    database: Database
    temporal: Client
    wakening: dict[UUID, "asyncio.Task[None]"] = field(default_factory=dict)  # by organization: its routing is being woken
    simulating: Processor = field(default_factory=lambda: Processor(2, timedelta(seconds=20)))
    passing: Processor = field(
        default_factory=lambda: Processor(2, timedelta(seconds=10))
    )  # cases on publishing: no simulation is before them
    accepting: dict[tuple[UUID, bool], Any] = field(default_factory=dict)  # api.commands.accepting: by organization and kind


@dataclass(frozen=True)
class Caller:
    """Who is asking, in which organization, with which permissions."""

    organization_id: UUID
    actor: Actor
    permissions: frozenset[str]
    services: Services
    user_id: UUID | None = None  # the person: the one who made the key, for an API key
    role: str | None = None  # None for an API key
    session_id: UUID | None = None

    @property
    def person(self) -> UUID | None:
        """Who answers for it: two keys of one member are one person. A key that no member made stands for itself."""
        return self.user_id or self.actor.id

    def session(self) -> AbstractAsyncContextManager[OrganizationSession]:
        """One transaction scoped to the caller's organization."""
        return self.services.database.organization(self.organization_id)


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


ServicesOf = Annotated[Services, Depends(services)]


def authorize(*permissions: str) -> Any:
    """A dependency that gives the `Caller` who holds all of the permissions, or raises NotAuthenticated / NotAllowed; or Invalid, where
    the address has a parameter that the route does not know.

    Use: `caller: Annotated[Caller, authorize("contacts.read")]`.
    """
    assert permissions and set(permissions) <= set(PERMISSIONS), f"{permissions} are not in models/domain/permissions.py"

    async def resolve(
        request: Request, bearer: Annotated[Any, Depends(SECURITY[0])], cookie: Annotated[Any, Depends(SECURITY[1])]
    ) -> Caller:
        found = services(request)
        identity = await identify(request, found.database)
        _check_allowed(identity, permissions)
        refuse_unknown_parameters(request)
        return _caller(identity, found)

    resolve.permissions = permissions  # type: ignore[attr-defined]  # read by the OpenAPI description and by tests
    return Depends(resolve)


def authenticate() -> Any:
    """A dependency that gives the `Caller` whatever their permissions, or raises NotAuthenticated; or Invalid, as `authorize`."""

    async def resolve(
        request: Request, bearer: Annotated[Any, Depends(SECURITY[0])], cookie: Annotated[Any, Depends(SECURITY[1])]
    ) -> Caller:
        found = services(request)
        identity = await identify(request, found.database)
        refuse_unknown_parameters(request)
        return _caller(identity, found)

    return Depends(resolve)


def _check_allowed(identity: Identity, permissions: tuple[str, ...]) -> None:
    for permission in permissions:
        if permission not in identity.permissions:
            raise NotAllowed.lacking(permission)
    if identity.suspended and not all(only_reads(permission) for permission in permissions):
        raise NotAllowed("The organization is suspended: it can be read, but nothing can be changed or sent.")


def _caller(identity: Identity, found: Services) -> Caller:
    return Caller(
        organization_id=identity.organization_id,
        actor=identity.actor,
        permissions=identity.permissions,
        services=found,
        user_id=identity.user_id,
        role=identity.role,
        session_id=identity.session_id,
    )
