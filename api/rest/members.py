"""`/v1/members`: the people of the organization and their roles."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from api.auth.passwords import MINIMUM_LENGTH
from api.commands import access as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.domain.permissions import Role
from models.store import access

router = APIRouter(prefix="/members", tags=["members"])


class MemberResponse(BaseModel):
    """`id` is the person's id, the same in every organization they belong to; `name` is what this one calls them."""

    id: UUID
    email: str
    name: str
    role: Role
    disabled_at: datetime | None
    joined_at: datetime


class NewMember(BaseModel):
    model_config = ConfigDict(extra="forbid")

    email: str = Field(max_length=254, examples=["bob@example.com"])
    name: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = Field(default="", examples=["Bob"])
    role: Role = Field(examples=["viewer"])
    password: str = Field(min_length=MINIMUM_LENGTH, max_length=1024, description="Ignored for somebody who has a login already.")

    @field_validator("email")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            return validate_email(value, check_deliverability=False, test_environment=True).normalized
        except EmailNotValidError as error:
            raise ValueError(str(error)) from None


class RoleChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Role = Field(examples=["designer"])


@router.get("")
async def list_members(caller: Annotated[Caller, authorize("organization.read")], query: PageOf) -> Page[MemberResponse]:
    """Everybody who belongs to the organization."""
    async with caller.session() as session:
        members = await access.list_members(session, query.limit + 1, query.after)
    return page([MemberResponse.model_validate(one, from_attributes=True) for one in members], [one.id for one in members], query)


@router.post("", status_code=201)
async def add_member(body: NewMember, caller: Annotated[Caller, authorize("organization.write")]) -> MemberResponse:
    """Add a person. Only an owner adds owners."""
    member = await commands.add_member(caller, body.email, body.name, body.role, body.password)
    return MemberResponse.model_validate(member, from_attributes=True)


@router.patch("/{user_id}")
async def change_role(user_id: UUID, body: RoleChange, caller: Annotated[Caller, authorize("organization.write")]) -> MemberResponse:
    """Give a member another role. The last owner stays one."""
    return MemberResponse.model_validate(await commands.change_role(caller, user_id, body.role), from_attributes=True)


@router.delete("/{user_id}", status_code=204)
async def remove_member(user_id: UUID, caller: Annotated[Caller, authorize("organization.write")]) -> None:
    """The person loses access at once: their sessions end, and the API keys they made are revoked."""
    await commands.remove_member(caller, user_id)
