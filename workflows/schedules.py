"""The schedules of an installation."""

from contextlib import suppress

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleSpec,
)

from activities.contracts import UPKEEP_EVERY, UPKEEP_WORKFLOW, Upkeep

UPKEEP_ID = "leadstats-upkeep"


async def ensure_upkeep(temporal: Client, task_queue: str) -> None:
    """Upkeep runs every minute, never two at once. Safe to repeat, and from several workers."""
    action = ScheduleActionStartWorkflow(UPKEEP_WORKFLOW, Upkeep(), id=UPKEEP_ID, task_queue=task_queue)
    with suppress(ScheduleAlreadyRunningError):
        await temporal.create_schedule(
            UPKEEP_ID, Schedule(action=action, spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=UPKEEP_EVERY)]))
        )
