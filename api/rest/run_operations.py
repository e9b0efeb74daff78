"""`/v1/run-operations`: the same command for many runs at once, previewed first."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.commands import run_operations as commands
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.reasons import RequiredReason, StatedReason
from models.domain.journey.happening import Happening, Names
from models.domain.journey.operations import MOST_RUNS, RunSelection
from models.domain.journey.reasons import reason_words
from models.store import run_operations
from models.tables.operating import RunOperation

router = APIRouter(prefix="/run-operations", tags=["runs"])

Result = Literal["pending", "done", "unchanged", "failed", "left_alone"]
_FILTER: JsonDict = {"journey_id": "0190a1b2-0000-7000-8000-000000000001", "statuses": ["needs_attention"], "reasons": ["step_failed"]}


class PreviewRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"command": "retry", "filter": _FILTER}]})

    command: str = Field(max_length=63, description="pause, resume, retry, skip, jump, cancel, set_variables, replay.", examples=["retry"])
    filter: RunSelection = Field(description="Which runs: all that is given must hold, and something must be given.")
    arguments: dict[str, Any] = Field(
        default={},
        max_length=20,
        description="jump: `to_step`; set_variables: `variables`; replay: `from_step`, `version`, `resend`.",
        examples=[{}],
    )
    limit: int | None = Field(None, ge=1, le=MOST_RUNS, description="At most so many runs, the oldest first.")


class StepCount(BaseModel):
    """Of the runs that the filter fits, those at one step of one version."""

    version: int
    step_id: str | None
    runs: int
    obeying: int


class StepEffects(BaseModel):
    step_id: str
    kept: int = 0
    resent: int = 0
    to_do: int = 0
    possible: int = 0
    uncertain: int = 0


class ReplayEffects(BaseModel):
    """Of a replay: how many effects (not runs) it would keep and do, summed over the operation's `runs`, as the preview of a single one
    (`POST /v1/runs/{id}/replays/preview`) counts them."""

    kept: int = Field(description="Done already, and not repeated.")
    resent: int = Field(description="Done already, and asked for once more.")
    to_do: int
    possible: int = Field(description="To do, if the run comes that way.")
    uncertain: int = Field(description="Nobody knows whether they were done: those runs need attention there.")
    by_step: list[StepEffects]


class OperationPreview(BaseModel):
    """All are numbers of runs, but for `effects`. `fitting` = `obeying` + the sum of `not_applicable` = the sum of `by_status`. The
    operation's `runs` are `obeying`, or as many of them as `limit` allows."""

    fitting: int = Field(description="Runs that the filter fits.")
    obeying: int = Field(description="Those of them for which the command makes sense: it will be said to them.")
    stay_paused: int = Field(
        0,
        description="Of those that obey: how many do so beneath a pause (the journey's, the campaign's or their own), and go on only when "
        "that is lifted.",
    )
    by_status: dict[str, int] = Field(
        description="As they are shown: whatever is paused is `paused`.", examples=[{"needs_attention": 118, "waiting": 3}]
    )
    by_step: list[StepCount]
    not_applicable: dict[str, int] = Field(
        description="The others, by why it makes no sense for them: they are left alone.",
        examples=[{"wrong_phase": 3, "paused_with_journey": 2}],
    )
    effects: ReplayEffects | None = Field(None, description="Of a replay; null for other commands.")
    ends_at_once: dict[str, int] | None = Field(
        None,
        description="Of a replay: how many of the operation's `runs` would end before they do anything, by the exit rule about the contact "
        "(or the goal that ends runs) that holds already. They have no `effects`. Null for other commands.",
        examples=[{"exit_rule:bought": 12}],
    )


class Progress(BaseModel):
    pending: int
    done: int
    unchanged: int
    failed: int
    left_alone: int = Field(description="Not told, because the operation was cancelled.")


class OperationView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    command: str
    filter: dict[str, Any]
    arguments: dict[str, Any]
    limit: int | None
    status: str = Field(description="previewed, running, completed or cancelled.", examples=["running"])
    runs: int = Field(description="How many it is for: those that obey, or the oldest of them up to `limit`.")
    preview: OperationPreview = Field(description="As it was.")
    progress: Progress
    reason: str | None
    created_at: datetime
    created_by: UUID | None
    expires_at: datetime = Field(description="Until then the preview can be carried out.")
    executed_at: datetime | None
    executed_by: UUID | None
    cancelled_at: datetime | None
    cancelled_by: UUID | None
    completed_at: datetime | None

    @classmethod
    def of(cls, row: RunOperation) -> Self:
        told = {name: getattr(row, name) for name in ("done", "unchanged", "failed", "left_alone")}
        pending = 0 if row.status == "previewed" else row.runs - sum(told.values())
        shown = {"filter": row.selection, "limit": row.maximum, "progress": {"pending": pending, **told}}
        return cls.model_validate({**row.model_dump(), **shown})


class Execution(BaseModel):
    model_config = ConfigDict(extra="forbid")

    preview_id: UUID
    reason: RequiredReason = Field(examples=["the mail server is back"])


class OperationReason(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: StatedReason | None = None


class OperationItem(BaseModel):
    run_id: UUID
    result: Result
    why: str | None = Field(description="A code; null when it was done.", examples=["moved_on"])
    sentence: str | None = Field(description="The code in words.", examples=["it had left the step that was meant"])
    status: str | None = Field(description="Of the run, as its workflow answered.")
    step_id: str | None = Field(description="Where it stood when it was taken.")
    details: dict[str, Any]
    settled_at: datetime | None


Bulk = Annotated[Caller, authorize("runs.bulk")]


@router.post("/previews", status_code=201)
async def preview_run_operation(caller: Bulk, body: PreviewRequest, response: Response) -> OperationView:
    """How many runs fit, by status and step, and what would happen to them. Touches no run. Needs the command's own permission too."""
    row = await commands.preview(caller, body.command, body.filter, body.arguments, body.limit)
    response.headers["Location"] = f"/v1/run-operations/{row.id}"
    return OperationView.of(row)


@router.post("", status_code=202)
async def execute_run_operation(caller: Bulk, body: Execution, response: Response) -> OperationView:
    """Does what was previewed, to exactly those runs. 409 `preview_outdated` when other ones fit by now, or they would go on with other
    versions: nothing is done. After a 503, repeat: it is carried out once."""
    row = await commands.execute(caller, body.preview_id, body.reason)
    response.headers["Location"] = f"/v1/run-operations/{row.id}"
    return OperationView.of(row)


@router.get("")
async def list_run_operations(caller: Annotated[Caller, authorize("runs.read")], query: PageOf) -> Page[OperationView]:
    """Those that were carried out, oldest first."""
    async with caller.session() as session:
        rows = await run_operations.page(session, query.limit + 1, query.after)
    return page([OperationView.of(row) for row in rows], [row.id for row in rows], query)


@router.get("/{operation_id}")
async def read_run_operation(caller: Annotated[Caller, authorize("runs.read")], operation_id: UUID) -> OperationView:
    async with caller.session() as session:
        return OperationView.of(await run_operations.get(session, operation_id))


@router.get("/{operation_id}/items")
async def list_run_operation_items(
    caller: Annotated[Caller, authorize("runs.read")],
    operation_id: UUID,
    query: PageOf,
    result: Annotated[Result | None, Query(examples=["failed"])] = None,
) -> Page[OperationItem]:
    """What became of each run, by id."""
    async with caller.session() as session:
        await run_operations.get(session, operation_id)
        found = await run_operations.items(session, operation_id, result, query.limit + 1, query.after)
    shown = [OperationItem.model_validate({**vars(each), "sentence": _sentence(each.why)}) for each in found]
    return page(shown, [each.run_id for each in found], query)


def _sentence(why: str | None) -> str | None:
    return reason_words(Happening("unchanged", Names(), None, None, why, None, {}, {}))


@router.put("/{operation_id}/cancellation")
async def cancel_run_operation(caller: Bulk, operation_id: UUID, why: OperationReason | None = None) -> OperationView:
    """Runs that have not been told yet are left alone. What others have done stays done."""
    return OperationView.of(await commands.cancel(caller, operation_id, why.reason if why else None))
