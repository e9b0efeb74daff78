"""`/v1/contacts`"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from api.commands.contacts import change_contact, normalize_field, save_contact
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.domain.contact import MAX_LENGTHS, Malformed, normalize_tag
from models.domain.errors import Invalid
from models.store import consents, contact_export, contacts, segments
from models.store.contacts import ContactFilter

router = APIRouter(prefix="/contacts", tags=["contacts"])

TagText = Annotated[str, StringConstraints(max_length=64)]
_EXAMPLE: JsonDict = {
    "external_id": "crm-1042",
    "email": "ada@example.com",
    "phone": "(212) 555-0123",
    "first_name": "Ada",
    "country": "US",
    "timezone": "America/New_York",
    "tags": ["vip"],
}


class ContactIn(BaseModel):
    """Fields that are left out stay as they are; null empties one. Attributes are merged by key, tags replaced."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    external_id: str | None = Field(None, max_length=MAX_LENGTHS["external_id"], description="Your own id of this person.")
    email: str | None = Field(None, max_length=MAX_LENGTHS["email"])
    phone: str | None = Field(None, max_length=MAX_LENGTHS["phone"], description="E.164, or as written in the contact's country.")
    first_name: str | None = Field(None, max_length=MAX_LENGTHS["first_name"])
    last_name: str | None = Field(None, max_length=MAX_LENGTHS["last_name"])
    locale: str | None = Field(None, max_length=MAX_LENGTHS["locale"], description="BCP 47.", examples=["pt-BR"])
    timezone: str | None = Field(None, max_length=MAX_LENGTHS["timezone"], description="IANA name.", examples=["Europe/Berlin"])
    country: str | None = Field(None, max_length=MAX_LENGTHS["country"], description="ISO 3166-1 alpha-2.", examples=["US"])
    region: str | None = Field(None, max_length=MAX_LENGTHS["region"])
    postal_code: str | None = Field(None, max_length=MAX_LENGTHS["postal_code"])
    attributes: dict[str, Any] | None = Field(
        None, max_length=200, description="Typed by the organization's attribute_schema.", examples=[{}]
    )
    tags: list[TagText] | None = Field(None, max_length=100)

    def given(self) -> dict[str, Any]:
        """What the request really says."""
        return self.model_dump(exclude_unset=True)


class ContactOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    external_id: str | None
    email: str | None
    phone: str | None
    first_name: str | None
    last_name: str | None
    locale: str | None
    timezone: str | None
    country: str | None
    region: str | None
    postal_code: str | None
    attributes: dict[str, Any]
    tags: list[str]
    created_at: datetime
    updated_at: datetime


class CurrentConsent(BaseModel):
    """The newest line of the ledger for one topic and channel."""

    model_config = ConfigDict(from_attributes=True)

    topic_id: UUID
    topic_key: str
    channel: str
    status: str
    method: str
    source: str
    occurred_at: datetime
    consent_id: UUID


class CurrentConsents(BaseModel):
    items: list[CurrentConsent]


@router.post("", status_code=201, responses={200: {"model": ContactOut, "description": "A contact that existed was changed."}})
async def upsert_contact(caller: Annotated[Caller, authorize("contacts.write")], body: ContactIn, response: Response) -> ContactOut:
    """Create the contact, or change the one that has this external_id or email."""
    saved = await save_contact(caller, body.given())
    response.status_code = 201 if saved.created else 200
    return ContactOut.model_validate(saved.contact)


@router.get("")
async def list_contacts(
    caller: Annotated[Caller, authorize("contacts.read")],
    query: PageOf,
    email: Annotated[str | None, Query(max_length=254)] = None,
    external_id: Annotated[str | None, Query(max_length=200)] = None,
    phone: Annotated[str | None, Query(max_length=40, description="E.164.")] = None,
    tag: Annotated[str | None, Query(max_length=64)] = None,
    segment_id: UUID | None = None,
) -> Page[ContactOut]:
    """Contacts that match everything that is asked for, oldest first."""
    number = _phone(phone)
    async with caller.session() as session:
        rule = None if segment_id is None else await segments.compile_segment(session, segment_id)
        wanted = ContactFilter(email, external_id, number, None if tag is None else normalize_tag(tag), rule)
        found = await contacts.list_contacts(session, wanted, query.limit + 1, query.after)
    return page([ContactOut.model_validate(contact) for contact in found], [contact.id for contact in found], query)


def _phone(given: str | None) -> str | None:
    try:
        return normalize_field("phone", given)
    except Malformed as error:
        raise Invalid.field("phone", error.code, error.message) from None


@router.get("/export", response_class=StreamingResponse, responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}})
async def export_contacts(caller: Annotated[Caller, authorize("contacts.read")]) -> StreamingResponse:
    """Every contact as CSV (UTF-8), in the form that POST /v1/contact-imports reads."""
    stream = contact_export.export(caller.services.database, caller.organization_id)
    headers = {"Content-Disposition": 'attachment; filename="contacts.csv"'}
    return StreamingResponse(stream, media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/{contact_id}")
async def read_contact(caller: Annotated[Caller, authorize("contacts.read")], contact_id: UUID) -> ContactOut:
    async with caller.session() as session:
        return ContactOut.model_validate(await contacts.get(session, contact_id))


@router.patch("/{contact_id}")
async def change(caller: Annotated[Caller, authorize("contacts.write")], contact_id: UUID, body: ContactIn) -> ContactOut:
    """Change the fields that are given; null empties one."""
    return ContactOut.model_validate((await change_contact(caller, contact_id, body.given())).contact)


@router.get("/{contact_id}/consents")
async def read_current_consents(caller: Annotated[Caller, authorize("consents.read")], contact_id: UUID) -> CurrentConsents:
    """What the contact agrees to now: one line per topic and channel about which anything was ever said."""
    async with caller.session() as session:
        await contacts.get(session, contact_id)
        found = await consents.current(session, contact_id)
    return CurrentConsents(items=[CurrentConsent.model_validate(line) for line in found])
