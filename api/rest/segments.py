"""`/v1/segments` and `/v1/segment-previews`"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.contacts import ContactOut
from api.rest.names import Name
from models.domain.audit import NewEntry
from models.store import audit, segments
from models.store.segments import Preview

router = APIRouter(tags=["segments"])

Sample = Annotated[int, Query(ge=0, le=50, description="How many of the selected contacts to show.")]
_RULE: JsonDict = {"all": [{"field": "country", "is": "in", "value": ["US", "CA"]}, {"not": {"tag": "staff"}}]}
_RULE_HELP = "The rule language of docs/segments.md."


class NewSegment(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "North America", "rule": _RULE}]})

    name: Name
    rule: dict[str, Any] = Field(description=_RULE_HELP)


class SegmentChange(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"rule": _RULE}]})

    name: Name = Field("", validate_default=False)
    rule: dict[str, Any] = Field(default_factory=dict, description=_RULE_HELP)


class SegmentOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    rule: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class PreviewRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"rule": _RULE, "sample": 5}]})

    rule: dict[str, Any] = Field(description=_RULE_HELP)
    sample: int = Field(10, ge=0, le=50)


class PreviewOut(BaseModel):
    count: int
    sample: list[ContactOut]


@router.post("/segments", status_code=201)
async def create_segment(caller: Annotated[Caller, authorize("segments.write")], body: NewSegment) -> SegmentOut:
    async with caller.session() as session:
        segment = await segments.create(session, body.name, body.rule)
        await audit.append(session, [NewEntry("segment.created", "segment", str(segment.id), caller.actor)])
    return SegmentOut.model_validate(segment)


@router.get("/segments")
async def list_segments(caller: Annotated[Caller, authorize("segments.read")], query: PageOf) -> Page[SegmentOut]:
    async with caller.session() as session:
        found = await segments.list_segments(session, query.limit + 1, query.after)
    return page([SegmentOut.model_validate(segment) for segment in found], [segment.id for segment in found], query)


@router.get("/segments/{segment_id}")
async def read_segment(caller: Annotated[Caller, authorize("segments.read")], segment_id: UUID) -> SegmentOut:
    async with caller.session() as session:
        return SegmentOut.model_validate(await segments.get(session, segment_id))


@router.patch("/segments/{segment_id}")
async def change_segment(caller: Annotated[Caller, authorize("segments.write")], segment_id: UUID, body: SegmentChange) -> SegmentOut:
    """Change the name, the rule, or both. Campaigns that were launched keep the rule they were launched with."""
    async with caller.session() as session:
        segment, changed = await segments.change(session, segment_id, body.model_dump(exclude_unset=True))
        if changed:
            entry = NewEntry("segment.changed", "segment", str(segment_id), caller.actor, {"fields": list(changed)})
            await audit.append(session, [entry])
    return SegmentOut.model_validate(segment)


@router.delete("/segments/{segment_id}", status_code=204)
async def delete_segment(caller: Annotated[Caller, authorize("segments.write")], segment_id: UUID) -> None:
    """Refused with 409 once a campaign was launched with the segment, and while a journey's draft or newest version names it."""
    async with caller.session() as session:
        await segments.delete(session, segment_id)
        await audit.append(session, [NewEntry("segment.deleted", "segment", str(segment_id), caller.actor)])


@router.get("/segments/{segment_id}/preview")
async def preview_segment(
    caller: Annotated[Caller, authorize("segments.read", "contacts.read")], segment_id: UUID, sample: Sample = 10
) -> PreviewOut:
    """How many contacts the segment selects now, and the oldest few of them. Needs `contacts.read` too: counts tell fields."""
    async with caller.session() as session:
        segment = await segments.get(session, segment_id)
        return _render(await segments.preview(session, segment.rule, sample))


@router.post("/segment-previews")
async def preview_rule(caller: Annotated[Caller, authorize("segments.read", "contacts.read")], body: PreviewRequest) -> PreviewOut:
    """The same for a rule that is not saved."""
    async with caller.session() as session:
        return _render(await segments.preview(session, body.rule, body.sample))


def _render(found: Preview) -> PreviewOut:
    return PreviewOut(count=found.count, sample=[ContactOut.model_validate(contact) for contact in found.sample])
