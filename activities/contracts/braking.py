"""A journey or campaign that was paused because too much of it failed."""

from datetime import datetime
from uuid import UUID

from temporalio import activity

from activities.contracts.payload import Payload

BRAKING_WORKFLOW = "BrakingWorkflow"


class BrakingRef(Payload):
    """A journey or campaign that was paused because too much of it failed. `tries`: how often its people were written to in vain."""

    organization_id: UUID
    braking_id: UUID
    tries: int = 0
    now: datetime | None = None  # the workflow's clock, so that virtual time works


class BrakingNotice(Payload):
    """When to try again to tell somebody; None: that is over."""

    look_at: datetime | None = None


@activity.defn(name="hold_braked")
async def hold_braked(braking: BrakingRef) -> None:
    """The control workflow of what was braked has heard that its runs pause, unless it has been resumed."""
    raise NotImplementedError


@activity.defn(name="notify_of_braking")
async def notify_of_braking(braking: BrakingRef) -> BrakingNotice:
    """The first of those responsible who can be told has a mail about it, or that is to be tried again later."""
    raise NotImplementedError
