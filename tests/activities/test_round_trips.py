"""Journeys that lead into each other through segments: bounded when contacts enter, and told of by the reconciler."""

from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from temporalio.testing import ActivityEnvironment

from activities.reconciling_records import RecordsActivities
from models.domain.findings import Kind
from models.store import findings, round_trips
from models.store.findings import FindingFilter
from models.tables.base import utc_now
from models.tables.findings import Finding
from tests.activities.journeys import Journeys
from tests.activities.plans import analyze, index_conditions
from tests.activities.world import World

SEGMENT = "0192d2a0-0000-7000-8000-000000000001"
ADD, REMOVE = {"kind": "update_contact", "add_tags": ["vip"]}, {"kind": "update_contact", "remove_tags": ["vip"]}


@pytest.fixture
def journeys(world: World) -> Journeys:
    return Journeys(world)


async def look(journeys: Journeys) -> list[Finding]:
    """What of it is open after a round of the reconciler."""
    records = RecordsActivities(journeys.world.database, cast(Any, None))
    await ActivityEnvironment().run(records._compare, journeys.world.organization_id)
    async with journeys.world.database.organization(journeys.world.organization_id) as session:
        wanted = FindingFilter(open=True, kind=Kind.GOING_ROUND)
        return list(await findings.page(session, wanted, 10, None))


async def by_segment(journeys: Journeys, kind: str, step: dict[str, Any]) -> UUID:
    trigger = {"kind": kind, "segment_id": SEGMENT, "rule": {"tag": "vip"}}
    return await journeys.publish({"entry": {"triggers": [trigger]}, "start": "change", "steps": {"change": step}})


async def go_round(journeys: Journeys, contact: UUID, times: int) -> None:
    """As the steps of both journeys would have it."""
    for _ in range(times):
        await journeys.tag(contact, "vip")
        await journeys.route()
        await journeys.tag(contact)
        await journeys.route()


async def test_journeys_that_lead_into_each_other_through_a_segment_are_named_until_it_is_over(journeys: Journeys) -> None:
    comes = await by_segment(journeys, "segment_entered", REMOVE)
    goes = await by_segment(journeys, "segment_left", ADD)
    bystander = await journeys.publish({"entry": {"triggers": [{"kind": "event", "event": "ordered"}]}})
    contact, other = await journeys.contact(), await journeys.contact()
    await journeys.say(contact, "ordered")
    await go_round(journeys, other, 2)
    await go_round(journeys, contact, 10)
    assert await look(journeys) == []  # as often as it may be
    await go_round(journeys, contact, 1)
    first, second = sorted(await look(journeys), key=lambda one: one.subject_id != str(comes))
    assert (first.subject_kind, first.journey_id, first.severity) == ("journey", comes, "problem")
    assert (second.journey_id, second.details["others"]) == (goes, [str(comes)])
    assert (first.details["contacts"], first.details["others"]) == (1, [str(goes)])
    assert str(goes) in first.cause and str(bystander) not in first.cause
    assert str(contact) not in f"{first.cause} {first.action} {first.details}"
    await journeys.world.sql("UPDATE entries SET decided_at = decided_at - interval '1 hour'")
    assert await look(journeys) == []


async def test_a_journey_alone_is_a_suspicion(journeys: Journeys) -> None:
    comes = await by_segment(journeys, "segment_entered", {"kind": "exit", "reason": "x"})
    await go_round(journeys, await journeys.contact(), 11)
    [found] = await look(journeys)
    assert (found.journey_id, found.severity, found.details["others"]) == (comes, "suspicion", [])


async def test_among_all_who_were_to_enter_only_the_last_hours_refusals_are_read(journeys: Journeys) -> None:
    journey = await journeys.publish({"entry": {"triggers": [{"kind": "event", "event": "ordered"}]}})
    await journeys.say(await journeys.contact(), "ordered")
    await journeys.route()
    await journeys.world.sql(
        """INSERT INTO entries SELECT (jsonb_populate_record(e, jsonb_build_object(
             'id', gen_random_uuid(), 'source_id', gen_random_uuid(), 'contact_id', gen_random_uuid(), 'run_id', NULL))).*
           FROM entries e, generate_series(1, 2000) WHERE e.journey_id = :id""",
        id=journey,
    )  # so many that the planner cares
    await analyze(journeys.world, "entries")
    wanted = {"since": utc_now(), "hour": timedelta(hours=1), "leading": ["event"], "often": 3, "contacts": 100}
    conditions = await index_conditions(journeys.world, round_trips._TURNED_BACK, **wanted)
    assert any("decided_at >" in line for line in conditions), conditions
