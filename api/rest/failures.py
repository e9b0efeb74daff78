"""`/v1/failures`: why runs need attention, by cause."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from models.domain.journey.failures import ADVICE, MEANINGS, FailureClass
from models.domain.journey.happening import Happening, Names
from models.domain.journey.reasons import reason_words
from models.store import failures
from models.store.failures import FailureFilter, Group

router = APIRouter(prefix="/failures", tags=["failures"])


class FailureView(BaseModel):
    """All runs of a journey that failed at the same step for the same reason."""

    fingerprint: str = Field(description="The same cause has the same, in every version.", examples=["0f3c9a…"])
    failure_class: FailureClass
    meaning: str = Field(description="Of the class, in words.")
    journey_id: UUID
    versions: list[int] = Field(description="Numbers of the versions that its runs are on now.")
    step_id: str | None = Field(examples=["welcome"])
    reason: str = Field(examples=["missing_value:contact.first_name"])
    words: str = Field(description="The reason, in words.")
    provider_code: str | None = Field(description="What the provider or the other system answered.", examples=["421"])
    runs: int = Field(description="How many need attention for it now.")
    seen: int = Field(description="How often a run ever failed for it; a retry that fails again counts again.")
    first_seen_at: datetime
    last_seen_at: datetime
    sample_run_id: UUID | None = Field(description="The newest of its runs; null when none needs attention for it any more.")
    advice: str = Field(description="What to do about it.")


@router.get("")
async def list_failures(
    caller: Annotated[Caller, authorize("runs.read")],
    query: PageOf,
    journey_id: UUID | None = None,
    campaign_id: Annotated[UUID | None, Query(description="Only its runs are counted.")] = None,
    failure_class: FailureClass | None = None,
    present: Annotated[bool, Query(description="Only causes for which runs need attention now; false: also those of the past.")] = True,
) -> Page[FailureView]:
    """Causes for which runs need attention, in the order in which they were first seen."""
    wanted = FailureFilter(journey_id, campaign_id, failure_class, present)
    async with caller.session() as session:
        found = await failures.page(session, wanted, query.limit + 1, query.after)
    return page([_view(group) for group in found], [group.id for group in found], query)


def _view(group: Group) -> FailureView:
    kind = FailureClass(group.failure_class)
    words = reason_words(Happening("parked", Names(), group.step_id, reason=group.reason)) or ""
    return FailureView(**{**vars(group), "failure_class": kind}, meaning=MEANINGS[kind], words=words, advice=ADVICE[kind])
