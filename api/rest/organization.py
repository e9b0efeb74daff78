"""`/v1/organization`: the caller's organization."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.commands import organizations as commands
from api.dependencies import Caller, authorize
from models import webhook_signature
from models.store import access
from models.tables.access import Organization

router = APIRouter(prefix="/organization", tags=["organization"])

TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5)]
Channel = Annotated[str, StringConstraints(max_length=20)]


class QuietWindow(BaseModel):
    """Nothing leaves from `start` up to `end`, by the clock where the contact is. May cross midnight."""

    model_config = ConfigDict(extra="forbid")

    start: TimeOfDay = Field(examples=["21:00"])
    end: TimeOfDay = Field(examples=["08:00"])


class OrganizationResponse(BaseModel):
    id: UUID
    name: str
    slug: str
    status: str = Field(examples=["active"])
    timezone: str = Field(examples=["Europe/Berlin"])
    quiet_hours: dict[str, QuietWindow]
    attribute_schema: dict[str, dict[str, Any]] = Field(examples=[{"plan": {"type": "string"}}])
    approval_required: bool = Field(description="A journey is published only when another person has approved exactly that content.")
    created_at: datetime


class OrganizationChange(BaseModel):
    """Only what is given changes. A channel's quiet hours are taken away by null; the attribute schema is replaced."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] = Field(default="", examples=["Acme"])
    timezone: str = Field(default="", max_length=64, description="IANA; for contacts without one.", examples=["Europe/Berlin"])
    quiet_hours: dict[Channel, QuietWindow | None] = Field(
        default={},
        validate_default=False,
        min_length=1,
        max_length=20,
        description="By channel; channels that are left out stay, null takes a channel's away.",
        examples=[{"email": {"start": "21:00", "end": "08:00"}}],
    )
    attribute_schema: dict[Annotated[str, StringConstraints(max_length=64)], dict[str, str]] = Field(
        default={}, max_length=200, examples=[{"plan": {"type": "string"}, "seats": {"type": "integer"}}]
    )
    approval_required: bool = Field(default=False, examples=[True])


class WebhookSecretResponse(BaseModel):
    """What the signatures of this organization's webhooks are made with, as libraries for Standard Webhooks take it."""

    secret: str = Field(examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])


@router.get("")
async def show(caller: Annotated[Caller, authorize("organization.read")]) -> OrganizationResponse:
    """The organization and its settings."""
    async with caller.session() as session:
        return _response(await access.get_organization(session))


@router.patch("")
async def change(body: OrganizationChange, caller: Annotated[Caller, authorize("organization.write")]) -> OrganizationResponse:
    """Change settings; those that are left out stay."""
    return _response(await commands.change_organization(caller, body.model_dump(exclude_unset=True)))


@router.get("/webhook-secret")
async def webhook_secret(caller: Annotated[Caller, authorize("organization.write")], response: Response) -> WebhookSecretResponse:
    """The secret that receivers of webhooks verify `webhook-signature` with. Always the same, and this organization's alone."""
    response.headers["Cache-Control"] = "no-store"
    secret = webhook_signature.webhook_secret(caller.services.settings, caller.organization_id)
    return WebhookSecretResponse(secret=webhook_signature.printed(secret))


def _response(organization: Organization) -> OrganizationResponse:
    return OrganizationResponse.model_validate(organization, from_attributes=True)
