"""`/v1/runs`: one contact's trip through one version each, why it stands where it stands, and what to do about it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from activities.contracts.run_control import Place
from api.commands import run_control as commands
from api.commands.run_control import Controlled, Word, control_run, review_run
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.headers import CommandKey
from api.rest.reasons import BODY_NEEDED, ReasonAsked, RequiredReason, StatedReason, stated
from models.domain.errors import Invalid
from models.domain.journey.failures import FailureClass
from models.domain.journey.operations import MOST_VARIABLES
from models.domain.journey.run import Phase
from models.domain.journey.steps.base import VariableName
from models.domain.journey.timeline import Entry
from models.domain.journey.variables import variable_problems
from models.store import runs, timelines
from models.store.runs import RunFilter

router = APIRouter(prefix="/runs", tags=["runs"])

StepPath = Annotated[str, Path(max_length=63, pattern=r"^[a-z][a-z0-9_-]*$")]


class RunReason(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: StatedReason | None = None


class Because(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: RequiredReason


class Skip(Because):
    """Left out: the step at which the run is recorded now, at this visit."""

    step_id: str | None = Field(None, max_length=63, description="The step that is meant: a run that has left it is not touched.")
    visit: int | None = Field(None, ge=1, le=1_000_000, description="Which of its visits; left out: whichever it is.")


class Jump(Because):
    step_id: str = Field(max_length=63, examples=["reminder"])


class VariablesChange(RunReason):
    variables: dict[VariableName, Any] = Field(
        min_length=1, max_length=MOST_VARIABLES, description="Any JSON; null takes the variable away.", examples=[{"order": "A-1043"}]
    )


class Review(RunReason):
    """Left out: the review at which the run is recorded now, at this visit."""

    decision: Literal["approved", "rejected"]
    step_id: str | None = Field(
        None, max_length=63, description="The review that was looked at: of a run that has left it nothing is decided."
    )
    visit: int | None = Field(None, ge=1, le=1_000_000, description="Which of its visits; left out: whichever it is.")


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
    failure_class: str | None = Field(description="While its step has failed for good, also when it is paused.", examples=["data"])
    failure_fingerprint: str | None = Field(description="The same for every run that failed for the same cause.")
    failed_at: datetime | None
    variables: dict[str, Any]
    workflow_id: str = Field(description="Of the Temporal workflow that carries it.")
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class ControlledRun(BaseModel):
    """`status` as its workflow says; `changed` is false when it was so already. A run with a message in flight is
    cancelled when that has come back. Repeated under a key that was answered, both are as they were answered, and `run` is as it is now."""

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
    source: str = Field(description="event, decision, delivery or goal", examples=["event"])
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
    failure_class: FailureClass | None = None,
    failure_fingerprint: Annotated[str | None, Query(max_length=64, description="As `GET /v1/failures` gives it.")] = None,
) -> Page[RunView]:
    """Runs, oldest first."""
    wanted = RunFilter(journey_id, version_id, campaign_id, contact_id, status, step_id, failure_class, failure_fingerprint)
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


async def _say(caller: Caller, run_id: UUID, word: Word, key: str | None) -> ControlledRun:
    done: Controlled = await control_run(caller, run_id, word, key)
    return ControlledRun(id=run_id, status=done.phase, changed=done.changed, run=RunView.model_validate(done.run))


@router.put("/{run_id}/pause")
async def pause_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, why: RunReason | None = None
) -> ControlledRun:
    """The run stops before its next step; a wait keeps its due time. After a 503, repeat with the same Idempotency-Key."""
    return await _say(caller, run_id, Word("pause", why.reason if why else None), key)


@router.delete("/{run_id}/pause")
async def resume_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, reason: ReasonAsked = None
) -> ControlledRun:
    """The run goes on where it stopped."""
    return await _say(caller, run_id, Word("resume", reason), key)


@router.put("/{run_id}/cancellation", openapi_extra=BODY_NEEDED)
async def cancel_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, why: Because | None = None
) -> ControlledRun:
    """The run ends, for good. A message already handed to the provider cannot be called back."""
    return await _say(caller, run_id, Word("cancel", stated(why).reason), key)


@router.put("/{run_id}/retry", openapi_extra=BODY_NEEDED)
async def retry_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, why: Because | None = None
) -> ControlledRun:
    """A run that needs attention tries its step again."""
    return await _say(caller, run_id, Word("retry", stated(why).reason), key)


@router.put("/{run_id}/skip", openapi_extra=BODY_NEEDED)
async def skip_run(
    caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, key: CommandKey = None, meant: Skip | None = None
) -> ControlledRun:
    """The run leaves the step at which it stands undone and goes on. 409 when it has left that step. While something is in flight for
    it, it skips when that has come back, if it still stands there then."""
    meant = stated(meant)
    return await _say(caller, run_id, Word("skip", meant.reason, _place(meant)), key)


def _place(meant: Skip | Review) -> Place | None:
    """Raises Invalid for a visit of no step, which would be taken for any."""
    if meant.step_id is None and meant.visit is not None:
        raise Invalid.field("step_id", "missing", "Say of which step this is the visit.")
    return None if meant.step_id is None else Place(step_id=meant.step_id, visit=meant.visit)


@router.put("/{run_id}/jump")
async def jump_run(caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, to: Jump, key: CommandKey = None) -> ControlledRun:
    """The run goes on at the named step of its version, where it arrives anew: what follows is done again, even where it was done
    before. What is in flight for it comes back first."""
    return await _say(caller, run_id, Word("jump", to.reason, to_step=to.step_id), key)


@router.put("/{run_id}/steps/{step_id}/cancellation", openapi_extra=BODY_NEEDED)
async def cancel_step(
    caller: Annotated[Caller, authorize("runs.control")],
    run_id: UUID,
    step_id: StepPath,
    key: CommandKey = None,
    why: Because | None = None,
) -> ControlledRun:
    """This contact is spared one step: now, if the run stands there, otherwise when it comes to it next. The others go on as planned."""
    return await _say(caller, run_id, Word("cancel_step", stated(why).reason, to_step=step_id), key)


@router.delete("/{run_id}/steps/{step_id}/cancellation")
async def restore_step(
    caller: Annotated[Caller, authorize("runs.control")],
    run_id: UUID,
    step_id: StepPath,
    key: CommandKey = None,
    reason: ReasonAsked = None,
) -> ControlledRun:
    """The step will be done after all."""
    return await _say(caller, run_id, Word("restore_step", reason, to_step=step_id), key)


@router.patch("/{run_id}/variables")
async def change_variables(caller: Annotated[Caller, authorize("runs.control")], run_id: UUID, body: VariablesChange) -> RunView:
    """The variables that are named have these values from now on; null takes one away. A wait that may depend on them looks anew. What is
    in flight may have read the old values."""
    if problems := variable_problems(body.variables):
        raise Invalid(problems)
    return RunView.model_validate(await commands.change_variables(caller, run_id, body.variables, body.reason))


@router.put("/{run_id}/review")
async def review(
    caller: Annotated[Caller, authorize("runs.review")], run_id: UUID, decided: Review, key: CommandKey = None
) -> ControlledRun:
    """A run that waits at a `review` step goes the way that the person has decided. 409 when it has left that step: name the step that was
    looked at, so that nobody decides the next review unseen."""
    done = await review_run(caller, run_id, decided.decision == "approved", decided.reason, key, _place(decided))
    return ControlledRun(id=run_id, status=done.phase, changed=done.changed, run=RunView.model_validate(done.run))
