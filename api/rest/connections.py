"""`/v1/connections`"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, EmailStr, Field, SecretStr, StringConstraints

from api.commands import connections as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.names import Name
from models.domain.connection import Security, SmtpConfig
from models.sandbox_account import at_sandbox_now
from models.settings import Settings
from models.store import connections
from models.store.connections import NewConnection, StoredConnection

router = APIRouter(prefix="/connections", tags=["connections"])

Host = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:-]+$")]
Username = Annotated[str, StringConstraints(min_length=1, max_length=320)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=1_000, description="Stored encrypted; never shown again.")]
Address = Annotated[EmailStr, Field(max_length=254)]
Rate = Annotated[float, Field(gt=0, le=10_000, description="Messages per second, over all workers; null for no limit.")]
DEFAULT = (
    "Versions that are published from now on send through it wherever a step names no connection. Versions published before stay on the "
    "connection that was the default then: publish again to move them."
)
_EXAMPLE: dict[str, Any] = {
    "name": "Newsletter",
    "host": "smtp.example.com",
    "port": 587,
    "security": "starttls",
    "username": "acme",
    "password": "correct horse battery staple",
    "sender_address": "news@example.com",
    "sender_name": "Acme News",
    "rate_per_second": 20,
    "is_default": True,
}


class NewSmtpConnection(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    name: Name
    provider: Literal["smtp"] = "smtp"
    host: Host
    port: int = Field(587, ge=1, le=65_535)
    security: Security = Field("starttls", description="`none` is for a server on this machine only.")
    username: Username | None = None
    password: Password | None = None
    sender_address: Address
    sender_name: str = Field("", max_length=200)
    reply_to: Address | None = None
    concurrency: int | None = Field(None, ge=1, le=100, description="Messages in the air per worker; null: as the installation says.")
    rate_per_second: Rate | None = None
    is_default: bool = Field(False, description=DEFAULT)


class ConnectionChange(BaseModel):
    """Only what is given changes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"rate_per_second": 5}]})

    name: Name = Field("", validate_default=False)
    host: Host = Field("", validate_default=False)
    port: int = Field(587, ge=1, le=65_535)
    security: Security = "starttls"
    username: Username | None = None
    password: Password | None = None
    sender_address: Address = Field("", validate_default=False)
    sender_name: str = Field("", max_length=200)
    reply_to: Address | None = None
    concurrency: int | None = Field(None, ge=1, le=100, description="Messages in the air per worker; null: as the installation says.")
    rate_per_second: Rate | None = None
    is_default: bool = Field(False, description=DEFAULT)


class ConnectionOut(BaseModel):
    id: UUID
    name: str
    channel: str
    provider: str
    host: str
    port: int
    security: str
    username: str | None
    has_password: bool
    sender_address: str
    sender_name: str
    reply_to: str | None
    concurrency: int | None
    sandbox: bool = Field(description="Your account at this installation's mail sandbox: host and port are where that listens now.")
    rate_per_second: float | None
    is_default: bool
    status: str = Field(description="`active`, or `broken`: runs wait until it is mended.")
    broken_reason: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, stored: StoredConnection, settings: Settings) -> Self:
        config = at_sandbox_now(SmtpConfig.model_validate(stored.config), stored.organization_id, settings)
        return cls(
            **config.model_dump(),
            id=stored.id,
            name=stored.name,
            channel=stored.channel,
            provider=stored.provider,
            has_password=stored.has_secret,
            rate_per_second=stored.rate_per_second,
            is_default=stored.is_default,
            status=stored.status,
            broken_reason=stored.broken_reason,
            created_at=stored.created_at,
            updated_at=stored.updated_at,
        )


class CheckOut(BaseModel):
    ok: bool
    reason: str | None = Field(description="A code, when it is not ok.")
    advice: str | None = Field(description="What to do about it.")


@router.post("", status_code=201)
async def create_connection(caller: Annotated[Caller, authorize("connections.write")], body: NewSmtpConnection) -> ConnectionOut:
    config = SmtpConfig(**body.model_dump(include=set(SmtpConfig.model_fields)))
    secret = body.password.get_secret_value() if body.password is not None else None
    new = NewConnection(body.name, "email", body.provider, config.model_dump(), secret, body.is_default, body.rate_per_second)
    return ConnectionOut.of(await commands.create_connection(caller, new), caller.services.settings)


@router.get("")
async def list_connections(caller: Annotated[Caller, authorize("connections.read")], query: PageOf) -> Page[ConnectionOut]:
    async with caller.session() as session:
        found = await connections.list_page(session, query.limit + 1, query.after)
    settings = caller.services.settings
    return page([ConnectionOut.of(stored, settings) for stored in found], [stored.id for stored in found], query)


@router.get("/{connection_id}")
async def read_connection(caller: Annotated[Caller, authorize("connections.read")], connection_id: UUID) -> ConnectionOut:
    async with caller.session() as session:
        return ConnectionOut.of(await connections.get(session, connection_id), caller.services.settings)


@router.patch("/{connection_id}")
async def change_connection(
    caller: Annotated[Caller, authorize("connections.write")], connection_id: UUID, body: ConnectionChange
) -> ConnectionOut:
    """Change the fields that are given. A new host, port or security needs the password again. It counts as mended: runs that
    were held for it go on at once. After a 503, repeat."""
    changes = body.model_dump(exclude_unset=True)
    if body.password is not None:
        changes["password"] = body.password.get_secret_value()
    return ConnectionOut.of(await commands.change_connection(caller, connection_id, changes), caller.services.settings)


@router.delete("/{connection_id}", status_code=204)
async def delete_connection(caller: Annotated[Caller, authorize("connections.write")], connection_id: UUID) -> None:
    await commands.delete_connection(caller, connection_id)


@router.post("/{connection_id}/checks")
async def check_connection(caller: Annotated[Caller, authorize("connections.write")], connection_id: UUID) -> CheckOut:
    """Connect and log in, without sending anything. When that works, runs that were held for the connection go on at once.
    After a 503, repeat."""
    result = await commands.check_connection(caller, connection_id)
    return CheckOut(ok=result.ok, reason=result.reason, advice=result.advice)
