from datetime import timedelta
from uuid import uuid4

from temporalio.testing import WorkflowEnvironment

from activities.contracts.campaign import CampaignRef
from activities.contracts.control import Control, ControlledKind
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import until, working
from workflows.campaign import CampaignWorkflow, ControlWorkflow
from workflows.occurrence import OccurrenceWorkflow


async def test_a_campaign_starts_its_pages_in_groups_and_stays_until_it_has_finished(server: WorkflowEnvironment) -> None:
    fakes = Fakes()
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4())
    async with working(server, fakes) as queue:
        await server.client.execute_workflow(CampaignWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
    assert fakes.batches["start_pages"] == [20, 10] and fakes.calls["finish_campaign"] == 4


async def test_a_campaign_that_continued_as_new_starts_no_page_again(server: WorkflowEnvironment) -> None:
    fakes = Fakes()
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4(), started=True)
    async with working(server, fakes) as queue:
        await server.client.execute_workflow(CampaignWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
    assert "start_pages" not in fakes.batches and fakes.calls["finish_campaign"] == 4


async def test_words_are_passed_on_in_the_order_they_were_said_and_the_same_word_once(server: WorkflowEnvironment) -> None:
    fakes = Fakes()
    word = Control(organization_id=uuid4(), kind=ControlledKind.CAMPAIGN, id=uuid4(), command="pause", request_id=uuid4())
    resume = word.model_copy(update={"command": "resume", "request_id": uuid4()})
    async with working(server, fakes) as queue:
        handle = await server.client.start_workflow(
            ControlWorkflow.run, id=f"test/{uuid4()}", task_queue=queue, start_signal="control", start_signal_args=[word]
        )
        for said in (word, resume):
            await handle.signal("control", said)
        await handle.result()
    assert fakes.words == ["pause", "resume"]
    assert fakes.batches["signal_workflows"] == [1, 2, 1, 2]


async def test_a_scheduled_campaign_sleeps_from_look_to_look_and_then_starts(server: WorkflowEnvironment) -> None:
    fakes = Fakes()
    fakes.looks = [timedelta(days=3), timedelta(minutes=15), None]
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4(), scheduled=True)
    async with working(server, fakes) as queue:
        await server.client.execute_workflow(CampaignWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
    first, second, third = fakes.looked
    assert timedelta(days=3) <= second - first < timedelta(days=3, minutes=1)
    assert timedelta(minutes=15) <= third - second < timedelta(minutes=16)
    assert fakes.batches["start_pages"] == [20, 10]


async def test_a_word_wakes_a_scheduled_campaign(server: WorkflowEnvironment) -> None:
    fakes = Fakes()
    fakes.looks = [timedelta(days=300), None]
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4(), scheduled=True)
    word = Control(organization_id=uuid4(), kind=ControlledKind.CAMPAIGN, id=campaign.campaign_id, command="cancel")
    async with working(server, fakes) as queue:
        with server.with_time_skipping_disabled():
            handle = await server.client.start_workflow(CampaignWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
        await until(lambda: len(fakes.looked) == 1)
        await handle.signal("control", word)
        await handle.result()
    assert len(fakes.looked) == 2


async def test_a_day_of_a_recurring_campaign_makes_its_occurrences_and_starts_them(server: WorkflowEnvironment) -> None:
    fakes = Fakes()
    campaign = CampaignRef(organization_id=uuid4(), campaign_id=uuid4())
    async with working(server, fakes) as queue:
        await server.client.execute_workflow(OccurrenceWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
        fakes.occurrences = 0
        await server.client.execute_workflow(OccurrenceWorkflow.run, campaign, id=f"test/{uuid4()}", task_queue=queue)
    assert fakes.batches["start_occurrences"] == [2] and fakes.calls["make_occurrences"] == 2
