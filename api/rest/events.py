"""`/v1/events`"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.commands.events import SaidEvent, accept
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.consents import OneOrMany
from models.domain.contact import MAX_LENGTHS
from models.domain.journey.written import Moment
from models.store import events
from models.store.events import Accepted

router = APIRouter(prefix="/events", tags=["events"])

_EXAMPLE: JsonDict = {
    "id": "shop-order-1042-placed",
    "name": "order placed",
    "external_id": "crm-1042",
    "properties": {"order_id": "A-1042", "total": 59.9},
}


NewEventName = Annotated[  # as EventName, by which versions are read; a name of spaces alone is none
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*[^\x00-\x1f\s][^\x00-\x1f]*$")
]


class NewEventLine(BaseModel):
    """Something that a contact did. Say whose it is by exactly one of contact_id, external_id and email."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    id: str | None = Field(None, min_length=1, max_length=200, description="Your own id of it: the same id is accepted once.")
    name: NewEventName
    contact_id: UUID | None = None
    external_id: str | None = Field(None, max_length=MAX_LENGTHS["external_id"])
    email: str | None = Field(None, max_length=MAX_LENGTHS["email"])
    properties: dict[str, Any] = Field(default_factory=dict, description="At most 32 KB.")
    occurred_at: Moment | None = Field(None, description="When it happened; now if left out.")
    hidden: bool = Field(False, description="Deliveries of runs that it begins stay out of lists.")


NewEvents = Annotated[list[NewEventLine], Field(min_length=1, max_length=1_000), OneOrMany()]


class AcceptedEvent(BaseModel):
    id: UUID | None
    contact_id: UUID | None
    new: bool = Field(description="False: an event with this id was accepted before, and nothing happens again.")


class AcceptedEvents(BaseModel):
    items: list[AcceptedEvent]


class EventOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    external_id: str | None
    name: str
    contact_id: UUID
    properties: dict[str, Any]
    hidden: bool
    occurred_at: datetime
    created_at: datetime = Field(description="When it was accepted.")
    routed_at: datetime | None = Field(description="When it was matched to journeys.")


@router.post("", status_code=202)
async def accept_events(
    caller: Annotated[Caller, authorize("events.write")],
    body: NewEvents,
    request: Request,
    create_contacts: Annotated[bool, Query(description="Whoever is not known by external_id or email becomes a contact.")] = True,
) -> AcceptedEvents:
    """One event, or up to 1,000 at once: all or none. They are on record when this answers; what follows from them comes within
    a second or so."""
    said = [SaidEvent(**line.model_dump()) for line in body]
    found = await accept(caller, said, make_contacts=create_contacts, single=isinstance(await request.json(), dict))
    return AcceptedEvents(items=[_accepted(one) for one in found])


def _accepted(one: Accepted) -> AcceptedEvent:
    return AcceptedEvent(id=one.id, contact_id=one.contact_id, new=one.new)


@router.get("")
async def list_events(
    caller: Annotated[Caller, authorize("events.read")],
    query: PageOf,
    contact_id: UUID | None = None,
    name: Annotated[str | None, Query(max_length=200)] = None,
) -> Page[EventOut]:
    """Events, oldest first."""
    async with caller.session() as session:
        found = await events.page(session, query.limit + 1, query.after, contact_id, name)
    return page([EventOut.model_validate(event) for event in found], [event.id for event in found], query)


@router.get("/{event_id}")
async def read_event(caller: Annotated[Caller, authorize("events.read")], event_id: UUID) -> EventOut:
    async with caller.session() as session:
        return EventOut.model_validate(await events.get(session, event_id))
