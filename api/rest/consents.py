"""`/v1/consents`"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.config import JsonDict
from pydantic_core import CoreSchema, core_schema

from api.commands.consents import StatedConsent, record_consents
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.domain.journey.written import Moment
from models.store import consents, contacts

router = APIRouter(prefix="/consents", tags=["consents"])

Channel = Literal["email", "sms"]
_EXAMPLE: JsonDict = {
    "contact_id": "019f0000-0000-7000-8000-000000000001",
    "topic": "news",
    "channel": "email",
    "status": "granted",
    "method": "form",
    "source": "https://example.com/subscribe",
    "evidence": {"form_version": "2026-05", "checkbox": "unticked by default"},
}


class NewConsentLine(BaseModel):
    """What a person said. Give the topic by id or by key."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    contact_id: UUID
    topic_id: UUID | None = None
    topic: str | None = Field(None, max_length=63, description="The topic's key.")
    channel: Channel
    status: Literal["granted", "withdrawn"]
    method: str = Field(min_length=1, max_length=50, description="How: form, api, paper, phone, checkout, staff, …")
    source: str = Field(min_length=1, max_length=500, description="Where: an address, a form, a place.")
    evidence: dict[str, Any] = Field(default_factory=dict, max_length=50, description="Whatever proves it: text shown, version, reference.")
    occurred_at: Moment | None = Field(None, description="When the person said so; now if left out; never in the future.")

    @model_validator(mode="after")
    def _one_topic(self) -> Self:
        if (self.topic_id is None) == (self.topic is None):
            raise ValueError("Name the topic by exactly one of topic_id and topic.")
        return self


class OneOrMany:
    """A list, for which a single item may stand."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(lambda given: given if isinstance(given, list) else [given], handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


NewConsents = Annotated[list[NewConsentLine], Field(min_length=1, max_length=1_000), OneOrMany()]


class ConsentOut(BaseModel):
    """A line of the ledger. It never changes."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    contact_id: UUID
    topic_id: UUID
    channel: str
    status: str
    method: str
    source: str
    evidence: dict[str, Any]
    actor_kind: str
    actor_id: UUID | None
    occurred_at: datetime
    created_at: datetime


class RecordedConsents(BaseModel):
    items: list[ConsentOut]


@router.post("", status_code=201)
async def record(caller: Annotated[Caller, authorize("consents.write")], body: NewConsents, request: Request) -> RecordedConsents:
    """Write one line, or up to 1,000 at once: all or none. The line with the latest `occurred_at` is the one in force."""
    stated = [StatedConsent(**line.model_dump()) for line in body]
    lines = await record_consents(caller, stated, single=isinstance(await request.json(), dict))
    return RecordedConsents(items=[ConsentOut.model_validate(line) for line in lines])


@router.get("")
async def list_consents(
    caller: Annotated[Caller, authorize("consents.read")],
    query: PageOf,
    contact_id: Annotated[UUID, Query(description="Whose ledger.")],
) -> Page[ConsentOut]:
    """A contact's ledger, in the order in which it was written."""
    async with caller.session() as session:
        await contacts.get(session, contact_id)
        lines = await consents.list_lines(session, contact_id, query.limit + 1, query.after)
    return page([ConsentOut.model_validate(line) for line in lines], [line.id for line in lines], query)
