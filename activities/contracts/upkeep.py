"""What is looked after every minute."""

from datetime import timedelta

from temporalio import activity

from activities.contracts.payload import Payload

UPKEEP_WORKFLOW = "UpkeepWorkflow"
UPKEEP_EVERY = timedelta(minutes=1)


class Upkeep(Payload):
    """What the upkeep workflow asks of an activity: everything, in every organization."""


@activity.defn(name="start_missing_workflows")
async def start_missing_workflows(upkeep: Upkeep) -> int:
    """Campaigns and runs whose rows were written, but whose workflow was never started, are started; how many were looked at."""
    raise NotImplementedError


@activity.defn(name="wake_routing")
async def wake_routing(upkeep: Upkeep) -> int:
    """Wherever something waits to be routed or told, or may have become true by time alone, routing is under way: how many
    organizations."""
    raise NotImplementedError
