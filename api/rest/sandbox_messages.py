"""`/v1/sandbox`: what the sandbox's inbox received, and how it is told to fail."""

from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.domain.audit import NewEntry
from models.store import audit, sandbox
from models.store.sandbox import InjectedFault, MessageFilter, MessageHead

router = APIRouter(prefix="/sandbox", tags=["sandbox"])

Phase = Literal["connect", "auth", "mail", "rcpt", "data"]
Action = Literal["refuse", "reply", "drop_before_dot", "drop_after_dot", "delay"]
Address = Annotated[str, Field(min_length=1, max_length=320)]


class MessageHeadOut(BaseModel):
    id: UUID
    sender: str
    recipient: str
    subject: str
    headers: dict[str, str]
    delivery_id: UUID | None = Field(description="From X-LeadStats-Delivery.")
    received_at: datetime

    @classmethod
    def of(cls, head: MessageHead) -> Self:
        return cls(
            id=head.id,
            sender=head.sender,
            recipient=head.recipient,
            subject=head.subject,
            headers=head.headers,
            delivery_id=head.delivery_id,
            received_at=head.created_at,
        )


class MessageOut(MessageHeadOut):
    text: str | None
    html: str | None
    raw: str = Field(description="As it arrived; bytes outside ASCII are replaced.")


class Cleared(BaseModel):
    messages: int


class Counted(BaseModel):
    discarded: int


class NewFault(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"phase": "rcpt", "action": "reply", "code": 451, "recipient": "ann@example.com", "remaining": 1}]},
    )

    phase: Phase
    action: Action
    code: int | None = Field(None, ge=400, le=599, description="For refuse and reply; the phase's usual one when left out.")
    message: str = Field("", max_length=200, pattern=r"^[ -~]*$")
    delay_ms: int | None = Field(None, ge=1, le=600_000, description="How long to wait first; required for delay.")
    recipient: Address | None = Field(None, description="Only for this address; for the phases rcpt and data.")
    remaining: int | None = Field(None, ge=1, le=1_000_000, description="How many times; null for until deleted.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.action.startswith("drop_") and self.phase != "data":
            raise ValueError("drop_before_dot and drop_after_dot belong to the phase data")
        if self.action == "delay" and self.delay_ms is None:
            raise ValueError("delay needs delay_ms")
        if self.recipient is not None and self.phase not in ("rcpt", "data"):
            raise ValueError("only the phases rcpt and data know a recipient")
        return self


class FaultOut(BaseModel):
    id: UUID
    phase: str
    action: str
    code: int | None
    message: str
    delay_ms: int | None
    recipient: str | None
    remaining: int | None
    created_at: datetime

    @classmethod
    def of(cls, fault: InjectedFault) -> Self:
        return cls.model_validate(fault, from_attributes=True)


@router.get("/messages")
async def list_messages(
    caller: Annotated[Caller, authorize("sandbox.read")],
    query: PageOf,
    recipient: Annotated[Address | None, Query(description="Whole address, in any case.")] = None,
    delivery_id: Annotated[UUID | None, Query()] = None,
    after: Annotated[AwareDatetime | None, Query(description="Received later than this.")] = None,
) -> Page[MessageHeadOut]:
    wanted = MessageFilter(recipient, delivery_id, after)
    async with caller.session() as session:
        found = await sandbox.list_messages(session, wanted, query.limit + 1, query.after)
    return page([MessageHeadOut.of(head) for head in found], [head.id for head in found], query)


@router.get("/messages/{message_id}")
async def read_message(caller: Annotated[Caller, authorize("sandbox.read")], message_id: UUID) -> MessageOut:
    async with caller.session() as session:
        head, raw = await sandbox.get_message(session, message_id)
    parsed = message_from_bytes(raw, policy=default)
    return MessageOut(
        **MessageHeadOut.of(head).model_dump(), text=_part(parsed, "plain"), html=_part(parsed, "html"), raw=raw.decode("ascii", "replace")
    )


def _part(message: EmailMessage, subtype: Literal["plain", "html"]) -> str | None:
    try:
        found = message.get_body((subtype,))
        content = found.get_content() if found is not None else None
    except (LookupError, ValueError, AttributeError):  # whatever a stranger's mail can be
        return None
    return content.replace("\r\n", "\n") if isinstance(content, str) else None


@router.delete("/messages")
async def clear_messages(caller: Annotated[Caller, authorize("sandbox.write")]) -> Cleared:
    """Empty the inbox, and forget the count of discarded messages."""
    async with caller.session() as session:
        removed = await sandbox.clear_messages(session)
        await audit.append(session, [NewEntry("sandbox.cleared", "sandbox", "messages", caller.actor, {"messages": removed})])
    return Cleared(messages=removed)


@router.get("/discarded")
async def count_discarded(caller: Annotated[Caller, authorize("sandbox.read")]) -> Counted:
    """How many messages were sent as `<organization id>+discard`; up to half a second old."""
    async with caller.session() as session:
        return Counted(discarded=await sandbox.discarded(session))


@router.post("/faults", status_code=201)
async def add_fault(caller: Annotated[Caller, authorize("sandbox.write")], body: NewFault) -> FaultOut:
    """Tell the inbox to fail. In force within half a second."""
    async with caller.session() as session:
        identifier = await sandbox.add_fault(session, body.model_dump())
        fault = await sandbox.get_fault(session, identifier)
        details = {"phase": body.phase, "action": body.action, "code": body.code}
        await audit.append(session, [NewEntry("sandbox_fault.created", "sandbox_fault", str(identifier), caller.actor, details)])
    return FaultOut.of(fault)


@router.get("/faults")
async def list_faults(caller: Annotated[Caller, authorize("sandbox.read")], query: PageOf) -> Page[FaultOut]:
    """Used up ones (`remaining` 0) included."""
    async with caller.session() as session:
        found = await sandbox.list_faults(session, query.limit + 1, query.after)
    return page([FaultOut.of(fault) for fault in found], [fault.id for fault in found], query)


@router.delete("/faults/{fault_id}", status_code=204)
async def delete_fault(caller: Annotated[Caller, authorize("sandbox.write")], fault_id: UUID) -> None:
    async with caller.session() as session:
        await sandbox.delete_fault(session, fault_id)
        await audit.append(session, [NewEntry("sandbox_fault.deleted", "sandbox_fault", str(fault_id), caller.actor)])


@router.delete("/faults", status_code=204)
async def clear_faults(caller: Annotated[Caller, authorize("sandbox.write")]) -> None:
    """The inbox works again."""
    async with caller.session() as session:
        await sandbox.clear_faults(session)
        await audit.append(session, [NewEntry("sandbox.faults_cleared", "sandbox", "faults", caller.actor)])
