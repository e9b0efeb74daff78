"""Resuming a paused journey or campaign: the numbers first, then at once, spread over a period, or without some."""

from datetime import datetime, timedelta
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.commands import campaigns, journeys, resumptions
from api.commands.resumptions import Outlook
from api.dependencies import Caller, authorize
from api.rest.headers import PostKey
from api.rest.reasons import StatedReason
from models.domain.journey.resumption import Manner
from models.domain.journey.written import Duration

router = APIRouter(tags=["journeys"])

CHECKED_AGAIN = (
    "Runs whose contact no longer fits the segment that brought it in exit instead; who waits to enter by such a segment does not."
)


class Overdue(BaseModel):
    by_at_least: timedelta = Field(examples=["PT1H"])
    runs: int


class ResumptionOutlook(BaseModel):
    """Counted now; a run that is paused by itself counts, and stays paused when the journey is resumed."""

    model_config = ConfigDict(from_attributes=True)

    paused_at: datetime | None = Field(description="Null: not paused.")
    runs: int = Field(description="Under way.")
    by_status: dict[str, int] = Field(description="Where they stand beneath the pause.", examples=[{"waiting": 9000, "active": 1000}])
    due: int = Field(description="Would go on at once.")
    waiting_for_connection: int = Field(
        description="Held by a connection that is broken still: resuming does not send them. None of them is `due`."
    )
    oldest_due_at: datetime | None
    overdue: list[Overdue]
    sends_due: int = Field(description="Of those due, how many would send a message first.")
    would_drop: int = Field(
        description="With this `drop_older_than`: of `due`, and of `waiting_for_connection` those that were to look again longer ago."
    )
    no_longer_fit: int = Field(description="With `recheck_entry`: of those that are not dropped.")
    entries_waiting: int = Field(description="Contacts that enter when the journey is resumed.")
    entries_no_longer_fit: int = Field(description="With `recheck_entry`: of `entries_waiting`, those who are refused.")

    @classmethod
    def of(cls, found: Outlook) -> Self:
        overdue = [Overdue(by_at_least=age, runs=runs) for age, runs in found.overdue]
        return cls.model_validate({**vars(found), "overdue": overdue})


class Resumption(BaseModel):
    """All left out: at once, everybody."""

    model_config = ConfigDict(extra="forbid")

    spread: Duration | None = Field(None, description="Each run goes on at a moment of its own within it.", examples=["PT10M"])
    drop_older_than: Duration | None = Field(None, description="Runs that were due longer ago exit instead.", examples=["P1D"])
    recheck_entry: bool = Field(False, description=CHECKED_AGAIN)
    reason: StatedReason | None = None

    def manner(self) -> Manner:
        return Manner(self.spread, self.drop_older_than, self.recheck_entry)


class ResumptionView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    paused_at: datetime | None = Field(description="Null as soon as the pause is lifted.")


DropOlderThan = Annotated[Duration | None, Query(description="How many would be dropped then.", examples=["P1D"])]


@router.get("/journeys/{journey_id}/resumption")
async def read_journey_resumption(
    caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID, drop_older_than: DropOlderThan = None
) -> ResumptionOutlook:
    """What resuming the journey now would do. Changes nothing."""
    return ResumptionOutlook.of(await resumptions.outlook(caller, "journey", journey_id, drop_older_than))


@router.post("/journeys/{journey_id}/resumptions", status_code=202)
async def resume_journey_so(
    caller: Annotated[Caller, authorize("journeys.publish")], journey_id: UUID, how: Resumption, key: PostKey = None
) -> ResumptionView:
    """The pause is being lifted in this manner. Those who are left out exit in the same instant. After a 503, repeat."""
    return ResumptionView.model_validate(await journeys.resume(caller, journey_id, key, how.manner(), how.reason))


@router.get("/campaigns/{campaign_id}/resumption")
async def read_campaign_resumption(
    caller: Annotated[Caller, authorize("campaigns.read")], campaign_id: UUID, drop_older_than: DropOlderThan = None
) -> ResumptionOutlook:
    """What resuming the campaign now would do. Changes nothing."""
    return ResumptionOutlook.of(await resumptions.outlook(caller, "campaign", campaign_id, drop_older_than))


@router.post("/campaigns/{campaign_id}/resumptions", status_code=202)
async def resume_campaign_so(
    caller: Annotated[Caller, authorize("campaigns.launch")], campaign_id: UUID, how: Resumption, key: PostKey = None
) -> ResumptionView:
    """The pause is being lifted in this manner. Those who are left out exit in the same instant. After a 503, repeat."""
    return ResumptionView.model_validate(await campaigns.resume(caller, campaign_id, key, how.manner(), how.reason))
