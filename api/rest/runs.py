"""`/v1/runs`: one contact's trip through one version each, why it stands where it stands, and what to do about it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.commands.runs import Command, Controlled, control_run, review_run
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.headers import CommandKey
from api.rest.reasons import StatedReason
from models.domain.journey.run import Phase
from models.domain.journey.timeline import Entry
from models.store import runs, timelines
from models.store.runs import RunFilter

router = APIRouter(prefix="/runs", tags=["runs"])


class RunReason(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: StatedReason | None = None


class Review(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decision: Literal["approved", "rejected"]
    reason: StatedReason | None = None


class RunView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None
    contact_id: UUID
    entry_source: str = Field(description="api, campaign, event, segment or journey.", examples=["event"])
    entry_key: str | None = Field(examples=["A-1042"])
    parent_run_id: UUID | None = Field(description="The run whose step led here.")
    replay_of: UUID | None = Field(description="The run in whose place this one goes on.")
    root_run_id: UUID | None = Field(description="Of a replay: the first run of its chain.")
    replayed_by: UUID | None = Field(description="The run that goes on in this one's place.")
    status: str = Field(description="Where it stands.", examples=["waiting"])
    step_id: str | None = Field(examples=["pause"])
    wake_at: datetime | None = Field(description="When it goes on by itself, while it waits or is held.")
    reason: str | None = Field(examples=["quiet_hours"])
    variables: dict[str, Any]
    workflow_id: str = Field(description="Of the Temporal workflow that carries it.")
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class ControlledRun(BaseModel):
    """`status` as its workflow says; `changed` is false when it was so already. A run with a message in flight is
    cancelled when that has come back."""

    id: UUID
    status: str = Field(examples=["paused"])
    changed: bool
    run: RunView


class TimelineDecision(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    check: str = Field(examples=["consent"])
    outcome: str = Field(examples=["refuse"])
    reason: str | None
    decided_at: datetime
    hold_until: datetime | None
    round: int
    inputs: dict[str, Any] = Field(description="The facts it rests on.")


class TimelineDelivery(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    state: str = Field(examples=["accepted"])
    outcome: str | None
    reason: str | None
    at: datetime


class TimelineEntry(BaseModel):
    """One line: the sentence to be read, and the records it was made of."""

    model_config = ConfigDict(from_attributes=True)

    at: datetime
    kind: str = Field(examples=["not_sent"])
    sentence: str = Field(examples=["Not sent: the contact withdrew consent for Product news on 3 Nov 2026 10:14 UTC"])
    source: str = Field(description="event, decision or delivery", examples=["event"])
    step_id: str | None
    visit: int | None
    reason: str | None = Field(examples=["consent_withdrawn"])
    until: datetime | None
    details: dict[str, Any]
    decision: TimelineDecision | None
    delivery: TimelineDelivery | None


class TimelineView(BaseModel):
    run: RunView
    entries: list[TimelineEntry]


@router.get("")
async def list_runs(
    caller: Annotated[Caller, authorize("runs.read")],
    query: PageOf,
    journey_id: UUID | None = None,
    version_id: UUID | None = None,
    campaign_id: UUID | None = None,
    contact_id: UUID | None = None,
    status: Phase | None = None,
    step_id: Annotated[str | None, Query(max_length=64, examples=["welcome"])] = None,
) -> Page[RunView]:
    """Runs, oldest first."""
    wanted = RunFilter(journey_id, version_id, campaign_id, contact_id, status, step_id)
    async with caller.session() as session:
        found = await runs.page(session, wanted, query.limit + 1, query.after)
    return page([RunView.model_validate(run) for run in found], [run.id for run in found], query)


@router.get("/{run_id}")
async def read_run(caller: Annotated[Caller, authorize("runs.read")], run_id: UUID) -> RunView:
    async with caller.session() as session:
        return RunView.model_validate(await runs.get(session, run_id))


@router.get("/{run_id}/timeline")
async def read_timeline(caller: Annotated[Caller, authorize("runs.read")], run_id: UUID) -> TimelineView:
    """What happened to the run, in sentences, oldest first, with the decisions and deliveries behind them."""
    async with caller.session() as session:
        run = await runs.get(session, run_id)
        entries = await timelines.read(session, run)
    return TimelineView(run=RunView.model_validate(run), entries=[_entry(entry) for entry in entries])


def _entry(entry: Entry) -> TimelineEntry:
    return TimelineEntry.model_validate(entry)


async def _control(caller: Caller, run_id: UUID, command: Command, key: str | None, why: RunReason | None = None) -> ControlledRun:
    done: Controlled = await control_run(caller, run_id, command, why.reason if why else None, key)
    return ControlledRun(id=run_id, status=done.phase, changed=done.changed, run=RunView.model_validate(done.run))


@router.put("/{run_id}/pause")
async def pause_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, why: RunReason | None = None
) -> ControlledRun:
    """The run stops before its next step; a wait keeps its due time. After a 503, repeat with the same Idempotency-Key."""
    return await _control(caller, run_id, "pause", key, why)


@router.delete("/{run_id}/pause")
async def resume_run(caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None) -> ControlledRun:
    """The run goes on where it stopped."""
    return await _control(caller, run_id, "resume", key)


@router.put("/{run_id}/cancellation")
async def cancel_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, why: RunReason | None = None
) -> ControlledRun:
    """The run ends, for good. A message already handed to the provider cannot be called back."""
    return await _control(caller, run_id, "cancel", key, why)


@router.put("/{run_id}/retry")
async def retry_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, why: RunReason | None = None
) -> ControlledRun:
    """A run that needs attention tries its step again."""
    return await _control(caller, run_id, "retry", key, why)


@router.put("/{run_id}/skip")
async def skip_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, why: RunReason | None = None
) -> ControlledRun:
    """A run that needs attention leaves its step undone and goes on."""
    return await _control(caller, run_id, "skip", key, why)


@router.put("/{run_id}/review")
async def review(
    caller: Annotated[Caller, authorize("runs.review")], run_id: UUID, decided: Review, key: CommandKey = None
) -> ControlledRun:
    """A run that waits at a `review` step goes the way that the person has decided."""
    done = await review_run(caller, run_id, decided.decision == "approved", decided.reason, key)
    return ControlledRun(id=run_id, status=done.phase, changed=done.changed, run=RunView.model_validate(done.run))
