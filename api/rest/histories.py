"""`/v1/runs/{id}/histories`: what the engine did for a run, as Temporal recorded it, kept after Temporal has forgotten it."""

import zlib
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.headers import IfNoneMatch, is_known
from models.store import histories, runs

router = APIRouter(prefix="/runs", tags=["runs"])


class HistoryView(BaseModel):
    """One link of a workflow that carried the run, and maybe others with it. A long one has several, one after the other."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    workflow_id: str
    temporal_run_id: str
    status: str = Field(description="How it closed: completed, continued_as_new, terminated, failed, canceled, timed_out.")
    started_at: datetime | None
    closed_at: datetime | None
    events: int
    size_bytes: int = Field(description="Of the JSON.")
    sha256: str = Field(description="Of the JSON, as in the audit entry history.archived.")
    archived_at: datetime


@router.get("/{run_id}/histories")
async def list_histories(caller: Annotated[Caller, authorize("runs.read")], run_id: UUID, query: PageOf) -> Page[HistoryView]:
    """The closed workflows that carried the run, those before a publish plan included, as they were archived."""
    async with caller.session() as session:
        found = await histories.page(session, await runs.get(session, run_id), query.limit + 1, query.after)
    return page([HistoryView.model_validate(each) for each in found], [each.id for each in found], query)


@router.get(
    "/{run_id}/histories/{history_id}",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {"schema": {"type": "object"}}}, "description": "Temporal's JSON of the history."},
        304: {"description": "You have it already, as `If-None-Match` says."},
    },
)
async def download_history(
    caller: Annotated[Caller, authorize("audit.read")], run_id: UUID, history_id: UUID, known: IfNoneMatch = None
) -> Response:
    """The history as Temporal writes it: its payloads are encrypted, and hold opaque ids only. The ETag is the SHA-256 of the body."""
    async with caller.session() as session:
        found, packed = await histories.read(session, await runs.get(session, run_id), history_id)
    tag = f'"{found.sha256}"'
    if is_known(tag, known):
        return Response(status_code=304, headers={"ETag": tag})
    headers = {"ETag": tag, "Content-Disposition": f'attachment; filename="history-{history_id}.json"'}
    return Response(zlib.decompress(packed), media_type="application/json", headers=headers)
