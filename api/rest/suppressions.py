"""`/v1/suppressions`. Addresses come in and never go out: only keyed hashes of them are kept."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.commands.contacts import normalize_field
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.domain.contact import Malformed
from models.domain.errors import Invalid
from models.store import suppressions
from models.store.suppressions import SuppressionFilter, address_hash
from models.tables.contacts import Suppression

router = APIRouter(prefix="/suppressions", tags=["suppressions"])

Channel = Literal["email", "sms"]
ReleaseReason = Literal["added_by_mistake", "asked_again", "address_reassigned", "other"]


class NewSuppression(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"address": "ada@example.com", "channel": "email"}]})

    address: str = Field(min_length=1, max_length=254, description="An email address, or a phone number with + and country code.")
    channel: Channel
    reason: Literal["unsubscribed", "bounced", "complained", "manual"] = "manual"


class SuppressionOut(BaseModel):
    id: UUID
    channel: str
    hash_prefix: str = Field(description="The first 8 hexadecimal digits of the keyed hash of the address.")
    reason: str
    source: str
    created_at: datetime
    released_at: datetime | None
    release_reason: str | None


def _render(row: Suppression) -> SuppressionOut:
    return SuppressionOut(hash_prefix=row.address_hash.hex()[:8], **row.model_dump(exclude={"organization_id", "address_hash"}))


@router.post("", status_code=201, responses={200: {"model": SuppressionOut, "description": "The address was suppressed already."}})
async def suppress(caller: Annotated[Caller, authorize("consents.write")], body: NewSuppression, response: Response) -> SuppressionOut:
    """Nothing is sent to the address over this channel any more, whatever consent says."""
    hashed = _hash(caller, body.channel, body.address)
    async with caller.session() as session:
        added = await suppressions.suppress(session, body.channel, [hashed], body.reason, "api", caller.actor)
        wanted = SuppressionFilter(body.channel, [hashed])
        [row] = await suppressions.list_suppressions(session, wanted, 1)
    response.status_code = 201 if added else 200
    return _render(row)


def _hash(caller: Caller, channel: Channel, address: str) -> bytes:
    field = "email" if channel == "email" else "phone"
    try:
        normalized = normalize_field(field, address)
    except Malformed as error:
        raise Invalid.field("address", error.code, error.message) from None
    if normalized is None:
        raise Invalid.field("address", "missing", "Give an address.")
    return address_hash(caller.services.settings.derive_key("suppressions"), channel, normalized)


@router.get("")
async def list_suppressions(
    caller: Annotated[Caller, authorize("consents.read")],
    query: PageOf,
    channel: Channel | None = None,
    address: Annotated[str | None, Query(min_length=1, max_length=254, description="Is this address suppressed?")] = None,
    released: Annotated[bool, Query(description="Show released ones too.")] = False,
) -> Page[SuppressionOut]:
    """Suppressions, oldest first. With `address`, those of this address."""
    hashes = None if address is None else [_hash(caller, "email" if "@" in address else "sms", address)]
    async with caller.session() as session:
        found = await suppressions.list_suppressions(session, SuppressionFilter(channel, hashes, released), query.limit + 1, query.after)
    return page([_render(row) for row in found], [row.id for row in found], query)


@router.delete("/{suppression_id}", status_code=204)
async def release(
    caller: Annotated[Caller, authorize("consents.write")],
    suppression_id: UUID,
    reason: Annotated[ReleaseReason, Query(description="Why the address may be written to again; it is recorded.")],
) -> None:
    """Release the address. The suppression stays in the record; releasing twice changes nothing."""
    async with caller.session() as session:
        await suppressions.release(session, suppression_id, reason, caller.actor)
