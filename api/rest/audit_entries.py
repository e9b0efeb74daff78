"""`/v1/audit-entries`: the append-only record of what happened and who did it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.checkpoints import Signer
from models.domain.audit import Link
from models.domain.audit_export import checkpoint_message
from models.store import audit
from models.store.audit_export import export_lines

router = APIRouter(prefix="/audit-entries", tags=["audit-entries"])

NDJSON = "application/x-ndjson"


class AuditActor(BaseModel):
    kind: str = Field(examples=["user"])
    id: UUID | None


class AuditSubject(BaseModel):
    kind: str = Field(examples=["campaign"])
    id: str


class AuditEntryResponse(BaseModel):
    """`hash` covers the entry and the hash before it (docs/auditing.md)."""

    sequence: int
    id: UUID
    occurred_at: datetime
    actor: AuditActor
    action: str = Field(examples=["campaign.paused"])
    subject: AuditSubject
    details: dict[str, Any]
    previous_hash: str
    hash: str


class Checkpoint(BaseModel):
    """At `sequence` the chain stood at `hash`, says the installation's key. Keep it: later exports must still go through it."""

    kind: Literal["checkpoint"] = "checkpoint"
    organization_id: UUID
    public_key: str = Field(description="Ed25519, raw, as hex. Pin it: `leadstats audit verify --public-key`.")
    sequence: int
    hash: str
    signature: str


class EntryQuery(BaseModel):
    model_config = ConfigDict(extra="ignore")

    subject_kind: str | None = Field(default=None, max_length=100, examples=["campaign"])
    subject_id: str | None = Field(default=None, max_length=200)
    action: str | None = Field(default=None, max_length=100, examples=["campaign.paused"])
    actor_id: UUID | None = None
    since: AwareDatetime | None = Field(default=None, description="From this time on.")
    until: AwareDatetime | None = Field(default=None, description="Before this time.")
    newest_first: bool = False


@router.get("")
async def list_entries(
    caller: Annotated[Caller, authorize("audit.read")], query: PageOf, wanted: Annotated[EntryQuery, Query()]
) -> Page[AuditEntryResponse]:
    """The record, oldest first unless asked otherwise."""
    chosen = audit.EntryFilter(**wanted.model_dump(exclude={"newest_first"}))
    after = None if query.after is None else query.after.int
    async with caller.session() as session:
        entries = await audit.list_entries(session, chosen, query.limit + 1, after, newest_first=wanted.newest_first)
    # Ids are made by several machines; only the sequence number orders the chain. It travels in the cursor as an id.
    return page([_response(entry) for entry in entries], [UUID(int=entry.sequence) for entry in entries], query)


def _response(entry: Link) -> AuditEntryResponse:
    return AuditEntryResponse(
        sequence=entry.sequence,
        id=entry.id,
        occurred_at=entry.occurred_at,
        actor=AuditActor(kind=entry.actor.kind, id=entry.actor.id),
        action=entry.action,
        subject=AuditSubject(kind=entry.subject_kind, id=entry.subject_id),
        details=dict(entry.details),
        previous_hash=entry.previous_hash.hex(),
        hash=entry.hash.hex(),
    )


@router.get("/checkpoint")
async def show_checkpoint(caller: Annotated[Caller, authorize("audit.read")]) -> Checkpoint:
    """The end of the chain, signed. An auditor who keeps it can prove later that nothing before it was changed."""
    async with caller.session() as session:
        head = await audit.head(session)
    signer = Signer(caller.services.settings)
    body = {"sequence": head.sequence, "hash": head.hash.hex()}
    return Checkpoint(
        organization_id=caller.organization_id,
        public_key=signer.public_key.hex(),
        sequence=head.sequence,
        hash=head.hash.hex(),
        signature=signer.sign(checkpoint_message(str(caller.organization_id), body)).hex(),
    )


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"description": "JSON lines for `leadstats audit verify`.", "content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def export(caller: Annotated[Caller, authorize("audit.read")]) -> StreamingResponse:
    """The whole record, streamed, with signatures: `leadstats audit verify FILE` checks it without this installation."""
    lines = export_lines(caller.services.database, caller.organization_id, Signer(caller.services.settings))
    return StreamingResponse(lines, media_type=NDJSON, headers={"Content-Disposition": 'attachment; filename="audit.jsonl"'})
