import asyncio
import json
from typing import Any, cast
from uuid import UUID

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities import campaign
from activities.campaign import CampaignActivities
from activities.contracts.campaign import AudiencePages, CampaignRef, PageRange
from activities.contracts.control import Control, ControlledKind, ControlPage, ControlTargets
from activities.control import ControlActivities
from activities.versions import Versions
from models.domain.journey import workflow_id
from models.tables.base import new_id
from tests.activities.recorder import given, told
from tests.activities.world import World
from tests.api.rest.fake_temporal import FakeTemporal


def campaigns(world: World, temporal: Client | None = None) -> CampaignActivities:
    return CampaignActivities(world.database, world.settings, Versions(), cast(Client, temporal))


def reference(world: World) -> CampaignRef:
    assert world.campaign_id is not None
    return CampaignRef(organization_id=world.organization_id, campaign_id=world.campaign_id)


async def snapshot(world: World) -> AudiencePages:
    return await ActivityEnvironment().run(campaigns(world).snapshot_audience, reference(world))


async def crowd(world: World, count: int, country: str = "DE") -> None:
    await world.sql(
        """INSERT INTO contacts (id, organization_id, email, country, attributes)
           SELECT gen_random_uuid(), :o, gen_random_uuid() || '@example.com', :country, '{}' FROM generate_series(1, :count)""",
        count=count,
        country=country,
    )


async def campaign_row(world: World) -> Any:
    (row,) = await world.sql("SELECT * FROM campaigns WHERE id = :id", id=world.campaign_id)
    return row


async def test_the_audience_is_taken_once_in_pages(world: World) -> None:
    await crowd(world, 25)
    await crowd(world, 5, "FR")
    await world.campaign(page_size=10, rule={"field": "country", "operator": "equals", "value": "DE"})
    first = await snapshot(world)
    await crowd(world, 3)
    assert await snapshot(world) == first
    assert (first.runs, first.pages) == (25, 3)
    runs = await world.sql("SELECT * FROM runs ORDER BY page, contact_id")
    assert [run["page"] for run in runs] == [0] * 10 + [1] * 10 + [2] * 5
    assert sorted(run["contact_id"] for run in runs) == [run["contact_id"] for run in runs]
    assert {run["workflow_id"] for run in runs if run["page"] == 2} == {
        workflow_id.campaign_page(world.organization_id, cast(UUID, world.campaign_id), 2)
    }
    assert {run["id"].version for run in runs} == {7}
    assert {(run["step_id"], run["status"], run["sequence"]) for run in runs} == {("news", "active", 0)}
    row = await campaign_row(world)
    assert (row["status"], row["audience"]) == ("running", 25) and row["started_at"] is not None
    assert await world.actions("campaign.") == ["campaign.started"]


async def test_a_campaign_for_everybody_takes_everybody(world: World) -> None:
    await crowd(world, 3)
    await world.campaign()
    assert (await snapshot(world)).runs == 3


async def test_an_empty_audience_completes_the_campaign(world: World) -> None:
    await world.campaign()
    assert (await snapshot(world)).pages == 0
    assert (await campaign_row(world))["status"] == "completed"
    assert await world.actions("campaign.") == ["campaign.started", "campaign.completed"]
    assert await world.one("SELECT details->>'reason' FROM audit_entries WHERE action = 'campaign.completed'") == "nobody_fitted"
    assert (await ActivityEnvironment().run(campaigns(world).finish_campaign, reference(world))).finished


async def test_a_campaign_cancelled_before_it_started_writes_to_nobody(world: World) -> None:
    await crowd(world, 3)
    await world.campaign()
    await world.sql("UPDATE campaigns SET cancelled_at = now(), status = 'cancelled'")
    assert (await snapshot(world)).runs == 0
    assert (await campaign_row(world))["status"] == "cancelled"


async def test_fifty_thousand_are_taken_within_a_minute(world: World) -> None:
    await crowd(world, 50_000)
    await world.campaign()
    began = asyncio.get_running_loop().time()
    assert (await snapshot(world)).pages == 250
    assert asyncio.get_running_loop().time() - began < 60


async def test_a_campaign_ends_when_no_run_is_unfinished(world: World) -> None:
    await crowd(world, 3)
    await world.campaign()
    await snapshot(world)
    activities = campaigns(world)
    finish = ActivityEnvironment().run
    assert not (await finish(activities.finish_campaign, reference(world))).finished
    await world.sql("UPDATE runs SET status = 'completed'")
    await world.sql("UPDATE runs SET status = 'needs_attention' WHERE id = (SELECT id FROM runs LIMIT 1)")
    assert not (await finish(activities.finish_campaign, reference(world))).finished
    await world.sql("UPDATE runs SET status = 'exited'")
    for _ in range(2):
        assert (await finish(activities.finish_campaign, reference(world))).finished
    row = await campaign_row(world)
    assert row["status"] == "completed" and row["finished_at"] is not None
    assert await world.actions("campaign.") == ["campaign.started", "campaign.completed"]


async def test_a_cancelled_campaign_ends_without_being_called_completed(world: World) -> None:
    await crowd(world, 2)
    await world.campaign()
    await snapshot(world)
    await world.sql("UPDATE campaigns SET cancelled_at = now(), status = 'cancelled'")
    await world.sql("UPDATE runs SET status = 'cancelled'")
    assert (await ActivityEnvironment().run(campaigns(world).finish_campaign, reference(world))).finished
    assert ((await campaign_row(world))["status"], await world.actions("campaign.")) == ("cancelled", ["campaign.started"])


async def test_each_page_gets_its_workflow_once(world: World, temporal: Client) -> None:
    await crowd(world, 25)
    await world.campaign(page_size=10)
    audience = await snapshot(world)
    await world.sql("UPDATE journeys SET paused_at = now()")
    activities = campaigns(world, temporal)
    for _ in range(2):
        await ActivityEnvironment().run(activities.start_pages, PageRange(scope=audience.scope, first=1, end=3))
    first, second = [await given(temporal, _page(world, page)) for page in (1, 2)]
    assert (len(first.runs), len(second.runs)) == (10, 5)
    assert first.scope == audience.scope
    assert first.definition == world.definition()
    assert first.held_by == ["journey"] and not first.cancelled
    state = first.runs[0]
    assert (state.step_id, state.phase, state.visit, state.visits, state.sequence) == ("news", "active", 1, {}, 0)
    description = await temporal.get_workflow_handle(_page(world, 1)).describe()
    assert {pair.key.name for pair in description.typed_search_attributes} >= {"OrganizationId", "JourneyId", "VersionId", "CampaignId"}


async def test_a_page_that_has_begun_is_not_started_even_if_temporal_has_forgotten_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The campaign's workflow may begin anew after so long. Runs of a page whose workflow was lost have begun, too."""
    await crowd(world, 25)
    await world.campaign(page_size=10)
    audience, forgetful = await snapshot(world), FakeTemporal()

    async def nothing_to_tell(*_: Any) -> None:
        pass

    monkeypatch.setattr(campaign, "tell_missed_words", nothing_to_tell)
    await world.sql("UPDATE runs SET sequence = 1, status = 'completed' WHERE id = (SELECT id FROM runs WHERE page = 0 LIMIT 1)")
    await world.sql("UPDATE runs SET sequence = 1, status = 'needs_attention', reason = 'workflow_lost' WHERE page = 1")
    pages = PageRange(scope=audience.scope, first=0, end=3)
    await ActivityEnvironment().run(campaigns(world, cast(Client, forgetful)).start_pages, pages)
    assert list(forgetful.started) == [_page(world, 2)]


async def test_a_pause_that_falls_between_reading_the_flags_and_starting_is_signalled(
    world: World, temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowd(world, 2)
    await world.campaign()
    audience = await snapshot(world)
    activities = campaigns(world, temporal)
    really = activities._read

    async def read_then_pause(pages: PageRange) -> Any:
        read = await really(pages)
        await world.sql("UPDATE campaigns SET paused_at = now(), cancelled_at = now()")
        return read

    monkeypatch.setattr(activities, "_read", read_then_pause)
    await ActivityEnvironment().run(activities.start_pages, PageRange(scope=audience.scope, first=0, end=1))
    assert await told(temporal, _page(world, 0)) == ["pause campaign", "cancel campaign"]


async def test_a_page_that_an_earlier_attempt_started_is_told_that_a_pause_is_over(world: World, temporal: Client) -> None:
    await crowd(world, 2)
    await world.campaign()
    pages = PageRange(scope=(await snapshot(world)).scope, first=0, end=1)
    await world.sql("UPDATE journeys SET paused_at = now()")
    await ActivityEnvironment().run(campaigns(world, temporal).start_pages, pages)
    await world.sql("UPDATE journeys SET paused_at = NULL")
    await ActivityEnvironment().run(campaigns(world, temporal).start_pages, pages)
    assert (await given(temporal, _page(world, 0))).held_by == ["journey"]
    assert "resume journey" in await told(temporal, _page(world, 0))


async def test_operators_words_change_the_flag_once_and_are_audited(world: World) -> None:
    await crowd(world, 3)
    await world.campaign()
    await snapshot(world)
    activities = ControlActivities(world.database, cast(Client, FakeTemporal()))

    async def say(command: Any, kind: ControlledKind = ControlledKind.CAMPAIGN) -> None:
        subject = world.campaign_id if kind is ControlledKind.CAMPAIGN else world.journey_id
        control = Control(organization_id=world.organization_id, kind=kind, id=cast(UUID, subject), command=command)
        await ActivityEnvironment().run(activities.apply_control, control)

    await say("pause")
    await say("pause")
    assert (await campaign_row(world))["status"] == "paused"
    await say("resume")
    assert ((await campaign_row(world))["status"], (await campaign_row(world))["paused_at"]) == ("running", None)
    await say("cancel")
    await say("pause")
    assert (await campaign_row(world))["status"] == "cancelled"
    assert await world.actions("campaign.") == ["campaign.started", "campaign.paused", "campaign.resumed", "campaign.cancelled"]
    for command in ("pause", "resume", "cancel"):
        await say(command, ControlledKind.JOURNEY)
    assert await world.actions("journey.") == ["journey.paused", "journey.resumed"]


@pytest.mark.parametrize("kind", [ControlledKind.CAMPAIGN, ControlledKind.JOURNEY])
async def test_a_pause_that_is_heard_after_the_resume_that_lifted_it_pauses_nothing(world: World, kind: ControlledKind) -> None:
    """Its flag is committed by one process, and another resumes before the first has said so."""
    await crowd(world, 3)
    await world.campaign()
    await snapshot(world)
    activities = ControlActivities(world.database, cast(Client, FakeTemporal()))
    subject = world.campaign_id if kind is ControlledKind.CAMPAIGN else world.journey_id
    row = f"{kind}s WHERE id = :id"

    async def heard(command: Any, pauses: int) -> bool:
        control = Control(organization_id=world.organization_id, kind=kind, id=cast(UUID, subject), command=command, pauses=pauses)
        return await ActivityEnvironment().run(activities.apply_control, control)

    async def is_paused() -> bool:
        return bool(await world.one(f"SELECT paused_at IS NOT NULL FROM {row}", id=subject))

    pause = f"UPDATE {kind}s SET paused_at = now(), pauses = pauses + 1 WHERE id = :id"
    await world.sql(pause, id=subject)
    assert await heard("pause", 1) and await is_paused()
    assert await heard("resume", 1) and not await is_paused()
    assert not await heard("pause", 1) and not await is_paused()
    await world.sql(pause, id=subject)
    assert not await heard("resume", 1) and await is_paused()
    assert await heard("pause", 1)  # said late, and true again


async def test_every_workflow_with_unfinished_runs_is_found_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.control.WORKFLOWS_PER_PAGE", 2)
    await crowd(world, 10)
    await world.campaign(page_size=2)
    await snapshot(world)
    await world.sql("UPDATE runs SET status = 'completed' WHERE page = 3")
    await world.sql("UPDATE runs SET status = 'completed' WHERE id IN (SELECT id FROM runs WHERE page = 1 LIMIT 1)")
    activities = ControlActivities(world.database, cast(Client, FakeTemporal()))
    for kind, subject in ((ControlledKind.CAMPAIGN, world.campaign_id), (ControlledKind.JOURNEY, world.journey_id)):
        control = Control(organization_id=world.organization_id, kind=kind, id=cast(UUID, subject), command="pause")
        found: list[str] = []
        page = ControlPage(control=control)
        while True:
            answer = await ActivityEnvironment().run(activities.controlled_workflows, page)
            found += answer.workflow_ids
            if answer.after is None:
                break
            page = ControlPage(control=control, after=answer.after)
        assert found == [_page(world, number) for number in (0, 1, 2, 4)]


async def test_only_workflows_with_runs_held_for_a_connection_are_found_when_it_is_mended(world: World) -> None:
    await crowd(world, 8)
    await world.campaign(page_size=1)
    await snapshot(world)
    mended, other, version, steps = new_id(), new_id(), new_id(), world.definition().model_dump(mode="json")
    steps["steps"]["news"]["connection_id"], steps["steps"]["receipt"]["connection_id"] = str(mended), str(other)
    await world.sql(
        """INSERT INTO journey_versions (id, organization_id, journey_id, number, definition, content_hash)
           VALUES (:id, :o, :journey_id, 2, CAST(:definition AS jsonb), '')""",
        id=version,
        journey_id=world.journey_id,
        definition=json.dumps(steps),
    )
    await world.sql("UPDATE runs SET status = 'held', reason = 'authentication_failed', version_id = :v WHERE page <> 6", v=version)
    await world.sql("UPDATE runs SET reason = 'quiet_hours' WHERE page = 2")
    await world.sql("UPDATE runs SET status = 'waiting' WHERE page = 3")
    await world.sql("UPDATE runs SET step_id = 'receipt' WHERE page IN (4, 5)")
    for connection_id, pages in ((mended, (0, 1, 7)), (other, (4, 5)), (new_id(), ())):
        control = Control(organization_id=world.organization_id, kind=ControlledKind.CONNECTION, id=connection_id, command="resume")
        activities = ControlActivities(world.database, cast(Client, FakeTemporal()))
        assert await ActivityEnvironment().run(activities.apply_control, control)
        found = await ActivityEnvironment().run(activities.controlled_workflows, ControlPage(control=control))
        assert found.workflow_ids == [_page(world, page) for page in pages]


async def test_workflows_are_told_and_closed_ones_need_not_be(world: World, temporal: Client) -> None:
    await crowd(world, 2)
    await world.campaign(page_size=1)
    audience = await snapshot(world)
    await ActivityEnvironment().run(campaigns(world, temporal).start_pages, PageRange(scope=audience.scope, first=0, end=2))
    control = Control(organization_id=world.organization_id, kind=ControlledKind.JOURNEY, id=world.journey_id, command="resume")
    targets = ControlTargets(control=control, workflow_ids=[_page(world, 0), _page(world, 1), _page(world, 99)])
    await ActivityEnvironment().run(ControlActivities(world.database, temporal).signal_workflows, targets)
    for page in (0, 1):
        assert await told(temporal, _page(world, page)) == ["resume journey"]


def _page(world: World, page: int) -> str:
    return workflow_id.campaign_page(world.organization_id, cast(UUID, world.campaign_id), page)
