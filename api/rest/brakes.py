"""`/v1/journeys/{id}/settings`: who answers for a journey, and when it is paused by itself; and how one sees that it was."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.commands import brakings as commands
from api.dependencies import Caller, authorize
from models.domain.journey.brake import Brake, braking_words
from models.store import journeys
from models.tables.failures import Braking
from models.tables.journeys import Journey

router = APIRouter(prefix="/journeys", tags=["journeys"])


class PausedBecause(BaseModel):
    """It was paused by itself. Null where a person paused it."""

    reason: str = Field(description="too_many_failures or first_failure.", examples=["too_many_failures"])
    words: str
    at: datetime
    facts: dict[str, Any] = Field(
        description="attempted, failed, share and the commonest reason (failure) of the latest messages; or the run_id that failed.",
        examples=[{"attempted": 25, "failed": 25, "share": 0.35, "failure": "policy_refused"}],
    )
    notice: str = Field(
        description="The mail about it: waiting, transmitting, told, unknown (it may have left), nobody (could be told), lifted.",
        examples=["told"],
    )
    notified_user_id: UUID | None


def paused_because(paused_at: datetime | None, braking: Braking | None) -> PausedBecause | None:
    """`braking` may have been read a moment later than `paused_at`, which decides."""
    if paused_at is None or braking is None:
        return None
    return PausedBecause(
        reason=braking.reason,
        words=braking_words(braking.reason, braking.facts),
        at=braking.created_at,
        facts=braking.facts,
        notice=braking.notice,
        notified_user_id=braking.notified_user_id,
    )


class SettingsChange(BaseModel):
    """What is left out stays as it is; null gives back what is usual."""

    model_config = ConfigDict(extra="forbid")

    owner_id: UUID | None = Field(default=None, description="The member who answers for it, and is told first when it is braked.")
    brake: Brake | None = Field(default=None, examples=[{"enabled": True, "share": 0.2, "at_least": 50}])


class SettingsView(BaseModel):
    journey_id: UUID
    owner_id: UUID | None
    brake: Brake = Field(description="As it acts: by default at 35 % of the latest messages, of which there are at least 20.")


def brake_of(stored: Mapping[str, Any] | None) -> Brake:
    return Brake.model_validate(stored or {})


def _view(journey: Journey) -> SettingsView:
    return SettingsView(journey_id=journey.id, owner_id=journey.owner_id, brake=brake_of(journey.brake))


@router.get("/{journey_id}/settings")
async def read_settings(caller: Annotated[Caller, authorize("journeys.read")], journey_id: UUID) -> SettingsView:
    async with caller.session() as session:
        return _view(await journeys.get(session, journey_id))


@router.patch("/{journey_id}/settings")
async def change_settings(
    caller: Annotated[Caller, authorize("journeys.publish")], journey_id: UUID, change: SettingsChange
) -> SettingsView:
    """At once, and for every version: who answers for the journey, and when it or a campaign of it is paused by itself."""
    wanted = commands.JourneyChange(frozenset(change.model_fields_set), change.owner_id, change.brake)
    return _view(await commands.change_settings(caller, journey_id, wanted))
