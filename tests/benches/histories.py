"""How many events and activities Temporal kept for a campaign's workflows."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecution, WorkflowHandle

from activities.contracts.journey import JOURNEY_WORKFLOW

SAMPLE = 10  # histories that are read whole to count activities
VISIBLE_WITHIN = 20.0  # seconds until a closed workflow's length is listed


@dataclass(frozen=True)
class Histories:
    """Of all workflows of one campaign. `activities` is estimated from a sample of each kind of workflow."""

    workflows: int
    events: int
    activities: float


async def count_histories(client: Client, campaign_id: str) -> Histories:
    """Counts once every workflow that carries runs of the campaign is listed as closed.

    Raises:
        TimeoutError: one is still open after `VISIBLE_WITHIN`.
    """
    found = await _all_closed(client, campaign_id)
    events = 0
    for one in found:  # the list knows the length of closed histories only
        closed = one.close_time is not None
        events += one.history_length if closed else (await client.get_workflow_handle(one.id).describe()).history_length
    return Histories(len(found), events, await _activities(client, found))


async def _all_closed(client: Client, campaign_id: str) -> list[WorkflowExecution]:
    deadline = time.monotonic() + VISIBLE_WITHIN
    while True:
        found = await _listed(client, campaign_id)
        open_ones = [one for one in found if one.workflow_type == JOURNEY_WORKFLOW and one.close_time is None]
        if found and not open_ones:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(open_ones)} workflows of the campaign are still open")
        await asyncio.sleep(0.5)


async def _listed(client: Client, campaign_id: str) -> list[WorkflowExecution]:
    return [one async for one in client.list_workflows(f'CampaignId = "{campaign_id}"', page_size=1000)]


async def _activities(client: Client, found: Sequence[WorkflowExecution]) -> float:
    total = 0.0
    for kind, count in Counter(one.workflow_type for one in found).items():
        sample = [one for one in found if one.workflow_type == kind][:SAMPLE]
        scheduled = [await _scheduled(client.get_workflow_handle(one.id, run_id=one.run_id)) for one in sample]
        total += sum(scheduled) / len(sample) * count
    return total


async def _scheduled(handle: "WorkflowHandle[object, object]") -> int:
    events = [event async for event in handle.fetch_history_events()]
    return sum(event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED for event in events)
