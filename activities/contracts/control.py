"""An operator's word about a whole campaign or journey."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal
from uuid import UUID

from temporalio import activity

from activities.contracts.payload import Payload

CONTROL_WORKFLOW = "ControlWorkflow"


class ControlledKind(StrEnum):
    CAMPAIGN = "campaign"
    JOURNEY = "journey"
    CONNECTION = "connection"  # only `resume`: it works again, and runs that were held for it ask now
    RESTORED = "restored"  # a journey, only `resume`: it is no longer archived, and campaigns that wait for that look again


class Control(Payload):
    """An operator's word about every run of a campaign or a journey."""

    organization_id: UUID
    kind: ControlledKind
    id: UUID
    command: Literal["pause", "resume", "cancel"]
    request_id: UUID | None = None  # the same word said twice has the same
    pauses: int | None = None  # how often a pause had been said: a resume lifts no later one, and a pause's flag stood before its word
    spread: timedelta | None = None  # resume: each run goes on at a moment of its own within it
    said_at: datetime | None = None  # of a spread resume that is said again: from when on it is spread; None: from now on
    drop_older_than: timedelta | None = None  # resume: runs that were due longer ago exit instead
    recheck_entry: bool = False  # resume: runs that could not enter now exit instead; who waits to enter, and does not fit, is refused
    braking_id: UUID | None = None  # a pause that stands only as long as this braking is in force
    actor_kind: str = "system"
    actor_id: UUID | None = None
    reason: str | None = None


class WorkflowPage(Payload):
    workflow_ids: Sequence[str]
    after: str | None = None  # pass it back for the next page; None: that was the last


class ControlPage(Payload):
    control: Control
    after: str | None = None


class ControlTargets(Payload):
    control: Control
    workflow_ids: Sequence[str]


@activity.defn(name="apply_control")
async def apply_control(control: Control) -> bool:
    """The flag on the campaign or journey is as commanded: from now on the last check before a send obeys it.

    False: a later word stands against this one, and nobody need be told of it."""
    raise NotImplementedError


@activity.defn(name="controlled_workflows")
async def controlled_workflows(page: ControlPage) -> WorkflowPage:
    """The next page of workflows that carry unfinished runs of the campaign or journey."""
    raise NotImplementedError


@activity.defn(name="signal_workflows")
async def signal_workflows(targets: ControlTargets) -> None:
    """Each workflow has been told. A workflow that is closed needs no telling."""
    raise NotImplementedError
