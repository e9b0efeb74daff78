"""`/v1/journeys/{id}/publish-plans`: publishing with a choice for the runs that are under way on older versions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from api.commands import publish_plans as commands
from api.commands.publish_plans import Plan
from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.headers import OptionalIfMatch
from models.domain.journey import publish_plan
from models.domain.journey.publish_plan import MAX_CHOICES
from models.store import journeys, publish_plans

router = APIRouter(prefix="/journeys", tags=["journeys"])

_CHOICE: JsonDict = {"version": 1, "step_id": "pause", "choice": "move", "to_step": "short_pause"}


class ChoiceIn(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_CHOICE]})

    version: int = Field(ge=1, le=2_147_483_647, description="Of the runs, as the preview numbers it.")
    step_id: str = Field(max_length=63)
    choice: Literal["finish", "move", "exit"] = Field(description="finish: they stay on their version.")
    to_step: str | None = Field(None, max_length=63, description="With move: the draft's step at which they arrive.")


class Execution(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"fingerprint": "5f2c…", "choices": [_CHOICE]}]})

    fingerprint: str = Field(max_length=64, description="As the preview gave it.")
    choices: list[ChoiceIn] = Field(max_length=MAX_CHOICES, description="Steps that are left out finish.")


class StepPreview(BaseModel):
    step_id: str
    name: str
    kind: str
    runs: int
    by_status: dict[str, int] = Field(examples=[{"waiting": 120, "held": 3}])
    in_draft: bool = Field(description="The draft has a step of this id and kind.")
    suggested: str = Field(examples=["finish"])


class VersionPreview(BaseModel):
    version_id: UUID
    number: int
    runs: int
    steps: list[StepPreview]


class PreviewView(BaseModel):
    """Only steps at which there are unfinished runs."""

    runs: int
    versions: list[VersionPreview]


class StepProgressView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    version: int
    step_id: str
    choice: str
    to_step: str | None
    moved: int
    exited: int
    remaining: int = Field(description="Still there: something is in flight for them, or their workflow has not been told yet.")
    lost: int = Field(
        description="Still there, but what carried them is gone (workflow_lost): they do not keep the plan. Replay or cancel them."
    )


class ProgressView(BaseModel):
    moved: int
    exited: int
    remaining: int
    lost: int
    steps: list[StepProgressView] = Field(description="Those whose runs move or exit.")


class PlanSummary(BaseModel):
    id: UUID
    journey_id: UUID
    revision: int
    content_hash: str = Field(description="Of the version that it publishes.")
    status: str = Field(description="previewed, executing or completed.", examples=["executing"])
    version: int | None = Field(description="The number of the version that it published.")
    created_by: UUID | None
    created_at: datetime
    executed_by: UUID | None
    executed_at: datetime | None
    completed_at: datetime | None
    progress: ProgressView

    @classmethod
    def of(cls, plan: Plan) -> Self:
        return cls.model_validate({**plan.row.model_dump(), "version": plan.version, "progress": _progress(plan.progress)})


class PlanView(PlanSummary):
    fingerprint: str = Field(description="Give it back with the choices: they hold for what this preview shows.")
    preview: PreviewView
    choices: list[ChoiceIn] = Field(description="As they were made; empty before.")

    @classmethod
    def of(cls, plan: Plan) -> Self:
        chosen = publish_plans.chosen(plan.row)
        steps = [
            {"version": step.number, "step_id": step.step_id, "choice": step.choice, "to_step": step.to_step}
            for step in (chosen.steps if chosen else ())
        ]
        shown = {"version": plan.version, "progress": _progress(plan.progress), "choices": steps}
        return cls.model_validate({**plan.row.model_dump(), **shown})


def _progress(steps: Sequence[publish_plans.StepProgress]) -> ProgressView:
    return ProgressView(
        moved=sum(step.moved for step in steps),
        exited=sum(step.exited for step in steps),
        remaining=sum(step.remaining for step in steps),
        lost=sum(step.lost for step in steps),
        steps=[StepProgressView.model_validate(step) for step in steps],
    )


@router.post("/{journey_id}/publish-plans", status_code=201)
async def make_publish_plan(
    caller: Annotated[Caller, authorize("journeys.publish")], journey_id: UUID, revision: OptionalIfMatch, response: Response
) -> PlanView:
    """Shows where the unfinished runs on older versions stand, so that one can choose what becomes of them. Publishes nothing."""
    plan = await commands.make(caller, journey_id, revision)
    response.headers["Location"] = f"/v1/journeys/{journey_id}/publish-plans/{plan.row.id}"
    return PlanView.of(plan)


@router.put("/{journey_id}/publish-plans/{plan_id}/execution", status_code=202)
async def execute_publish_plan(
    caller: Annotated[Caller, authorize("journeys.publish")], journey_id: UUID, plan_id: UUID, body: Execution
) -> PlanView:
    """Publishes, and moves or ends runs as chosen. 409 when the draft or the counts have changed since the preview: nothing is
    published. After a 503, repeat: the version is published once."""
    choices = [publish_plan.Choice(each.version, each.step_id, each.choice, each.to_step) for each in body.choices]
    return PlanView.of(await commands.execute(caller, journey_id, plan_id, body.fingerprint, choices))


@router.get("/{journey_id}/publish-plans")
async def list_publish_plans(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, query: PageOf) -> Page[PlanSummary]:
    """Oldest first, each with how far it has come."""
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        rows = await publish_plans.page(session, journey_id, query.limit + 1, query.after)
        plans = await commands.with_progress(session, rows)
    return page([PlanSummary.of(plan) for plan in plans], [row.id for row in rows], query)


@router.get("/{journey_id}/publish-plans/{plan_id}")
async def read_publish_plan(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, plan_id: UUID) -> PlanView:
    return PlanView.of(await commands.read(caller, journey_id, plan_id))
