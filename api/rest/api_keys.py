"""`/v1/api-keys`"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from api.commands import access as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.domain.journey.written import Moment
from models.domain.permissions import PERMISSIONS
from models.store import access

router = APIRouter(prefix="/api-keys", tags=["api-keys"])

LONGEST_LIFE: Final = timedelta(days=36_500)


class ApiKeyResponse(BaseModel):
    """A key without its secret. `prefix` is the part of the key to recognise it by; `last_used_at` is kept to the minute."""

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
    created_by: UUID | None
    made_by: UUID | None = Field(description="The key that it was made with, and does not outlive; null when a person made it.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class CreatedApiKey(ApiKeyResponse):
    """`secret` is the whole key. It is shown this once and kept only as a hash."""

    secret: str = Field(examples=["ls_1f0c2d3e_mJ0Zx…"])


class NewApiKey(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)] = Field(examples=["Billing system"])
    scopes: list[Annotated[str, StringConstraints(max_length=50)]] = Field(
        min_length=1, max_length=len(PERMISSIONS), examples=[["contacts.write", "runs.start"]]
    )
    expires_at: Moment | None = Field(
        default=None, description="Null: never, or with the key that makes it.", examples=["2030-01-01T00:00:00Z"]
    )

    @field_validator("expires_at")
    @classmethod
    def _near_enough(cls, value: datetime | None) -> datetime | None:
        if value is not None and not timedelta(0) < value - datetime.now(UTC) < LONGEST_LIFE:
            raise ValueError("must lie in the future, at most 100 years from now")
        return value


@router.get("")
async def list_keys(caller: Annotated[Caller, authorize("api_keys.read")], query: PageOf) -> Page[ApiKeyResponse]:
    """The organization's keys, oldest first, revoked ones included."""
    async with caller.session() as session:
        keys = await access.list_api_keys(session, query.limit + 1, query.after)
    return page([ApiKeyResponse.model_validate(key, from_attributes=True) for key in keys], [key.id for key in keys], query)


@router.post("", status_code=201)
async def create_key(body: NewApiKey, caller: Annotated[Caller, authorize("api_keys.write")]) -> CreatedApiKey:
    """A new key, with no more scopes than you have yourself. Made with a key, it expires with that one at the latest."""
    created = await commands.create_api_key(caller, body.name, body.scopes, body.expires_at)
    shown = ApiKeyResponse.model_validate(created.key, from_attributes=True)
    return CreatedApiKey(**shown.model_dump(), secret=created.secret)


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: UUID, caller: Annotated[Caller, authorize("api_keys.write")]) -> None:
    """The key stops working at once, and so do the keys that were made with it. They stay in the list."""
    await commands.revoke_api_key(caller, key_id)
