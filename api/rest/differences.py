"""`/v1/journeys/{id}/differences`: what has changed between two versions, or since one, as data."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.commands import differences as commands
from api.dependencies import Caller, authorize

router = APIRouter(prefix="/journeys", tags=["journeys"])

Number = Annotated[int, Field(ge=1, le=2_147_483_647)]


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class FieldChangeView(View):
    path: str = Field(examples=["conditions[0].next"])
    before: Any = Field(description="Null: there was no such field, or it was null.")
    after: Any


class WholeStepView(View):
    step_id: str
    step: dict[str, Any]


class StepChangeView(View):
    step_id: str
    kind: str = Field(description="Of the step, afterwards.", examples=["wait"])
    fields: list[FieldChangeView]


class DifferenceView(View):
    """Steps are the same when they have the same id."""

    added: list[WholeStepView]
    removed: list[WholeStepView]
    changed: list[StepChangeView]
    rules: list[FieldChangeView] = Field(description="Around the steps: start, entry, exits, goals, the journey's end.")
    templates: list[StepChangeView] = Field(description="What the messages of steps on both sides say: subject, html, text.")


@router.get("/{journey_id}/differences")
async def compare_versions(
    caller: Annotated[Caller, authorize("journeys.read", "templates.read")],
    journey_id: UUID,
    before: Annotated[Number, Query(alias="from", description="A version's number.", examples=[1])],
    after: Annotated[Number | Literal["draft"], Query(alias="to", description="A version's number, or the draft.")] = "draft",
) -> DifferenceView:
    """What has to be done to the one to make it the other. The draft is taken as it would be published now."""
    return DifferenceView.model_validate(await commands.between(caller, journey_id, before, None if after == "draft" else after))
