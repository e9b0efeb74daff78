from uuid import uuid4

from temporalio.testing import WorkflowEnvironment

from activities.contracts import CampaignRef, Control, ControlledKind
from tests.workflows.fakes import Fakes
from tests.workflows.test_journey import working
from workflows.campaign import CampaignWorkflow, ControlWorkflow


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
