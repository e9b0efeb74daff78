"""What ends and counts a run that has only begun: rules about its contact that hold already, and events that came while nobody saw it."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import text
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.campaign import CampaignActivities
from activities.contracts.campaign import AudiencePages, CampaignRef, PageRange
from activities.contracts.routing import Routing
from activities.replaying import replay_inputs
from activities.routing import RoutingActivities
from activities.versions import Versions
from models.domain.audit import SYSTEM
from models.domain.journey import workflow_id
from models.store import events, replay_plans, replays, snapshots, waits
from models.store.replay_plans import Plan, ReplayOptions
from tests.activities.journeys import Journeys
from tests.activities.recorder import given, told
from tests.activities.world import World

CUSTOMER = {"name": "customer", "when": {"tag": "customer"}}
CANCELLED = {"name": "cancelled", "event": "cancelled"}
READER = {"name": "reader", "when": {"not": {"tag": "customer"}}}
ORDERED = {"kind": "event", "event": "ordered"}


@pytest.fixture
def journeys(world: World) -> Journeys:
    return Journeys(world)


async def campaign_with(journeys: Journeys, **rules: Any) -> UUID:
    """Of a version of the world's journey with these rules."""
    world = journeys.world
    await journeys.publish(rules, world.journey_id)
    world.version_id = await world.one("SELECT id FROM journey_versions WHERE journey_id = :id ORDER BY number DESC", id=world.journey_id)
    return await world.campaign()


def campaigns(world: World, temporal: Client) -> CampaignActivities:
    return CampaignActivities(world.database, world.settings, Versions(), temporal)


async def snapshot(world: World, temporal: Client) -> AudiencePages:
    assert world.campaign_id is not None
    campaign = CampaignRef(organization_id=world.organization_id, campaign_id=world.campaign_id)
    return await ActivityEnvironment().run(campaigns(world, temporal).snapshot_audience, campaign)


async def start(world: World, temporal: Client, audience: AudiencePages) -> None:
    await ActivityEnvironment().run(campaigns(world, temporal).start_pages, PageRange(scope=audience.scope, first=0, end=1))


def page(world: World) -> str:
    assert world.campaign_id is not None
    return workflow_id.campaign_page(world.organization_id, world.campaign_id, 0)


async def leaving(world: World, temporal: Client) -> dict[UUID, str | None]:
    """By contact, as its page's workflow was told when it began."""
    return {state.contact_id: state.leaving for state in (await given(temporal, page(world))).runs}


async def reasons(journeys: Journeys) -> dict[UUID, str | None]:
    return {run["contact_id"]: run["exit_reason"] for run in await journeys.runs(journeys.world.journey_id)}


# --- campaigns ----------------------------------------------------------------------------------------------------------


async def test_whom_a_rule_about_contacts_ends_already_leaves_a_campaign_before_its_page_begins(
    journeys: Journeys, temporal: Client
) -> None:
    world = journeys.world
    await campaign_with(journeys, exits=[CUSTOMER], goals=[READER])
    customer, reader = await journeys.contact(tags=["customer"]), await journeys.contact()
    await journeys.route()  # nobody is noted any more
    await start(world, temporal, await snapshot(world, temporal))
    expected = {customer: "exit_rule:customer", reader: None}
    assert await leaving(world, temporal) == expected and await reasons(journeys) == expected
    assert await journeys.goals(world.journey_id) == 1
    assert await told(temporal, page(world)) == []


async def test_an_event_that_was_matched_while_the_audience_was_taken_counts(journeys: Journeys, temporal: Client) -> None:
    world = journeys.world
    campaign_id = await campaign_with(journeys, exits=[CANCELLED])
    before, meanwhile = await journeys.contact(), await journeys.contact()
    await journeys.say(before, "cancelled")
    async with world.database.organization(world.organization_id) as session:
        await snapshots.snapshot(session, campaign_id)
        await journeys.say(meanwhile, "cancelled")
        await journeys.route()
    await start(world, temporal, await snapshot(world, temporal))
    assert await leaving(world, temporal) == {before: None, meanwhile: "exit_rule:cancelled"}


async def test_a_page_waits_for_what_routing_has_taken_and_not_committed(journeys: Journeys, temporal: Client) -> None:
    world = journeys.world
    campaign_id = await campaign_with(journeys, exits=[CANCELLED])
    contact = await journeys.contact()
    async with world.database.organization(world.organization_id) as taking:
        await snapshots.snapshot(taking, campaign_id)
        event = await journeys.say(contact, "cancelled")
        async with world.database.organization(world.organization_id) as routing:  # which sees no run to end
            await waits.routing_lock(routing, alone=True)
            await events.routed(routing, [event])
            await taking.commit()
            starting = asyncio.ensure_future(start(world, temporal, await snapshot(world, temporal)))
            waiting = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
            async with asyncio.timeout(60):
                while not await routing.scalar(waiting):
                    assert not starting.done(), "it did not wait"
                    await asyncio.sleep(0.01)
    await starting
    assert await leaving(world, temporal) == {contact: "exit_rule:cancelled"}


async def test_a_page_that_an_earlier_attempt_started_is_told_who_leaves(journeys: Journeys, temporal: Client) -> None:
    world = journeys.world
    await campaign_with(journeys, exits=[CUSTOMER])
    contact = await journeys.contact()
    audience = await snapshot(world, temporal)
    await start(world, temporal, audience)
    await journeys.tag(contact, "customer")
    await start(world, temporal, audience)
    assert await leaving(world, temporal) == {contact: None}
    assert "exit exit_rule:customer" in await told(temporal, page(world))


async def test_a_campaign_without_such_rules_does_not_wait_for_routing(journeys: Journeys, temporal: Client) -> None:
    world = journeys.world
    await campaign_with(journeys)
    contact = await journeys.contact()
    audience = await snapshot(world, temporal)
    async with world.database.organization(world.organization_id) as routing:
        await waits.routing_lock(routing, alone=True)
        async with asyncio.timeout(60):
            await start(world, temporal, audience)
    assert await leaving(world, temporal) == {contact: None}


# --- entries and replays ------------------------------------------------------------------------------------------------


async def test_whom_an_event_brings_in_although_a_rule_ends_it_is_ended_in_the_transaction_that_lets_it_in(journeys: Journeys) -> None:
    journey = await journeys.publish({"entry": {"triggers": [ORDERED]}, "exits": [CUSTOMER], "goals": [READER]})
    customer, reader = await journeys.contact(tags=["customer"]), await journeys.contact()
    await journeys.route()
    for contact in (customer, reader):
        await journeys.say(contact, "ordered")
    routing = RoutingActivities(journeys.world.database, journeys.world.settings, Versions(), cast(Any, None))
    await routing._route(Routing(organization_id=journeys.world.organization_id))
    assert {run["contact_id"]: run["exit_reason"] for run in await journeys.runs(journey)} == {
        customer: "exit_rule:customer",
        reader: None,
    }
    assert await journeys.goals(journey) == 1


async def test_a_replay_that_a_rule_about_its_contact_ends_begins_with_that(journeys: Journeys) -> None:
    world = journeys.world
    vip = {"name": "vip", "when": {"tag": "vip"}, "exit": True}
    late = {"name": "late", "when": {"tag": "late"}, "exit": True, "window": "PT1H"}
    rules = {"exits": [CUSTOMER, CANCELLED], "goals": [READER, vip, late]}
    journey = await journeys.publish({"entry": {"triggers": [ORDERED]}, **rules})
    everybody = customer, canceller, keen, later = [await journeys.contact() for _ in range(4)]
    for contact in everybody:
        await journeys.say(contact, "ordered")
    await journeys.route()
    olds = [run["id"] for run in await journeys.runs(journey)]
    for run_id in olds:
        await journeys.ended(run_id)
    await world.sql("UPDATE runs SET created_at = created_at - interval '2 hours', entered_at = NULL")  # the window of one goal is over
    for contact, tags in ((customer, ["customer", "vip"]), (keen, ["vip"]), (later, ["late"])):
        await journeys.tag(contact, *tags)
    await journeys.say(canceller, "cancelled")  # before: it does not end what begins now
    await journeys.route()
    wanted = ReplayOptions(reason="outage")
    async with world.database.organization(world.organization_id) as session:
        plans = await replay_plans.plan(session, await replay_plans.load(session, olds, lock=True), wanted)
        seen = await replay_plans.ends_at_once(session, [plan for plan in plans if isinstance(plan, Plan)])
        counted = await replay_plans.dry_run(session, olds, wanted)
        made, _ = await replays.make(session, [plan for plan in plans if isinstance(plan, Plan)], wanted, SYSTEM)
    async with world.database.organization(world.organization_id) as session:
        inputs = await replay_inputs(session, Versions(), sorted({one.workflow_id for one in made}))
    states = [state for each in inputs.values() for state in each.runs]
    left = {customer: "exit_rule:customer", keen: "goal:vip"}
    assert {state.contact_id: state.leaving for state in states} == {**dict.fromkeys(everybody), **left}
    contacts = {plan.old.id: plan.old.contact_id for plan in plans}
    assert {contacts[run_id]: reason for run_id, reason in seen.items()} == left  # what its dry run had said
    assert counted.ended == {"exit_rule:customer": 1, "goal:vip": 1}
