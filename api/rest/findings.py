"""`/v1/findings`: what stands still, is lost or does not add up, each with its cause and what to do. `/v1/conservation`: whether the
numbers agree."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.commands import findings as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.reasons import RequiredReason
from models.domain.findings import Kind
from models.store import conservation, findings
from models.store.findings import FindingFilter
from models.tables.findings import Finding

router = APIRouter(tags=["findings"])


class Subject(BaseModel):
    kind: str = Field(description="workflow, step, journey or organization.", examples=["workflow"])
    id: str = Field(description="A workflow's id; of a step VERSION_ID/STEP_ID.")


class AcknowledgementView(BaseModel):
    at: datetime
    by_kind: str = Field(examples=["user"])
    by: UUID | None
    reason: str


class FindingView(BaseModel):
    """One trouble, from when it was first seen until it was gone."""

    id: UUID
    kind: Kind
    severity: str = Field(description="problem; or suspicion: it may be as it is meant.", examples=["problem"])
    subject: Subject
    journey_id: UUID | None
    runs: int = Field(description="How many unfinished runs are concerned.")
    cause: str = Field(description="What is wrong, and why, as far as one can see.")
    action: str = Field(description="What a person should do, with the route.")
    details: dict[str, Any] = Field(description="The facts that it rests on: ids, codes, counts and times.")
    first_seen_at: datetime
    last_seen_at: datetime
    seen: int = Field(description="In how many rounds, one a minute.")
    resolved_at: datetime | None = Field(description="When the trouble was gone; set by itself.")
    acknowledgement: AcknowledgementView | None

    @classmethod
    def of(cls, found: Finding) -> Self:
        said = None
        if found.acknowledged_at is not None:
            said = AcknowledgementView(
                at=found.acknowledged_at,
                by_kind=found.acknowledged_by_kind or "system",
                by=found.acknowledged_by,
                reason=found.acknowledgement or "",
            )
        subject = Subject(kind=found.subject_kind, id=found.subject_id)
        return cls.model_validate({**found.model_dump(), "subject": subject, "acknowledgement": said})


class Acknowledgement(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: RequiredReason = Field(examples=["the shop sends this event only in December"])


class ConservationView(BaseModel):
    """Both sides at `taken_at`: `entered` by the records of entries, `runs` by the table of runs. `holds` when they agree."""

    model_config = ConfigDict(extra="ignore")

    taken_at: datetime
    holds: bool
    entered: int
    by_campaigns: int = Field(description="Sizes of the snapshots of campaigns' audiences.")
    by_others: int = Field(description="Entries by events, segments, journeys and the API, on the audit record.")
    present: int = Field(description="The sum over `runs`.")
    runs: dict[str, int] = Field(examples=[{"waiting": 120, "completed": 880}])
    difference: int = Field(description="entered - present.")
    deliveries: dict[str, int] = Field(description="By state.", examples=[{"accepted": 1000}])
    accepted: int
    accepted_recorded: int = Field(description="Accepted deliveries on the audit record.")
    deliveries_difference: int
    workflows_checked_at: datetime | None = Field(description="When rows were last compared with workflows; older than minutes: no worker.")
    records_checked_at: datetime | None


@router.get("/findings")
async def list_findings(
    caller: Annotated[Caller, authorize("runs.read")],
    query: PageOf,
    open: Annotated[bool | None, Query(description="true: not resolved; false: resolved.")] = None,
    kind: Kind | None = None,
    journey_id: UUID | None = None,
    subject_id: Annotated[str | None, Query(max_length=300, description="Such as a run's workflow_id.")] = None,
) -> Page[FindingView]:
    """Oldest first."""
    wanted = FindingFilter(open, kind, journey_id, subject_id)
    async with caller.session() as session:
        found = await findings.page(session, wanted, query.limit + 1, query.after)
    return page([FindingView.of(each) for each in found], [each.id for each in found], query)


@router.get("/findings/{finding_id}")
async def read_finding(caller: Annotated[Caller, authorize("runs.read")], finding_id: UUID) -> FindingView:
    async with caller.session() as session:
        return FindingView.of(await findings.get(session, finding_id))


@router.put("/findings/{finding_id}/acknowledgement")
async def acknowledge_finding(caller: Annotated[Caller, authorize("runs.control")], finding_id: UUID, body: Acknowledgement) -> FindingView:
    """Somebody knows of it. It stays open until its trouble is gone."""
    return FindingView.of(await commands.acknowledge(caller, finding_id, body.reason))


@router.get("/conservation")
async def read_conservation(caller: Annotated[Caller, authorize("runs.read")]) -> ConservationView:
    """Whether everybody who entered is somewhere, counted now. 503 where that takes longer than ten seconds: see the findings instead."""
    async with caller.session() as session:
        found, check = await conservation.balance(session), await conservation.last_check(session)
    checked = {"workflows_checked_at": check and check.workflows_at, "records_checked_at": check and check.records_at}
    return ConservationView.model_validate({**found.details(), **checked})
