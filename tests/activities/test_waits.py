"""Waits that a run leaves by a skip or a jump: which events end them, and which end the next. Routing with a database, no workflows."""

from typing import Any

import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.contracts.payload import Scope
from activities.contracts.steps import StepAnswer, StepVisit, VisitBatch
from activities.versions import Versions
from activities.waits import WaitActivities
from tests.activities.journeys import LEAVE, Journeys
from tests.activities.test_audit import happened, record
from tests.activities.world import NOON, World


class Waiting:
    """A run of a journey that waits for `paid` twice."""

    def __init__(self, world: World) -> None:
        self.world, self.journeys = world, Journeys(world)

    async def build(self) -> "Waiting":
        first, second = ({"kind": "wait_for", "events": [{"event": "paid", "next": next}]} for next in ("second", "x"))
        self.journey_id = await self.journeys.publish({"start": "first", "steps": {"first": first, "second": second, **LEAVE}})
        self.version_id = await self.world.one("SELECT id FROM journey_versions WHERE journey_id = :id", id=self.journey_id)
        self.run_id = await self.world.contact()
        await self.world.sql(
            "UPDATE runs SET journey_id = :journey_id, version_id = :version_id", journey_id=self.journey_id, version_id=self.version_id
        )
        return self

    async def open(self, step_id: str, visit: int = 1) -> StepAnswer:
        scope = Scope(organization_id=self.world.organization_id, journey_id=self.journey_id, version_id=self.version_id)
        asking = StepVisit(run_id=self.run_id, contact_id=self.world.contacts[self.run_id], step_id=step_id, visit=visit)
        activities = WaitActivities(self.world.database, Versions())
        [answer] = await ActivityEnvironment().run(activities.open_waits, VisitBatch(scope=scope, now=NOON, visits=[asking]))
        return answer

    async def paid(self) -> None:
        await self.journeys.say(self.world.contacts[self.run_id], "paid")
        await self.journeys.route()

    async def tell(self, sequence: int, kind: str, step_id: str, **values: Any) -> None:
        values = {"phase": "active", "visit": 1, **values}
        await record(self.world, happened(self.run_id, sequence, kind, values.pop("phase"), step_id=step_id, **values))

    async def states(self) -> list[tuple[str, int, str]]:
        rows = await self.world.sql("SELECT step_id, visit, state FROM waits WHERE run_id = :id ORDER BY step_id, visit", id=self.run_id)
        return [(row["step_id"], row["visit"], row["state"]) for row in rows]


@pytest_asyncio.fixture(loop_scope="session")
async def waiting(world: World) -> Waiting:
    return await Waiting(world).build()


async def test_a_wait_that_was_skipped_leaves_the_event_to_the_next_one(waiting: Waiting) -> None:
    """Which opens only later: a message between the two is held."""
    await waiting.open("first")
    await waiting.tell(3, "skipped", "first")
    await waiting.paid()
    assert await waiting.journeys.words() == []
    assert (await waiting.open("second")).index == 0


async def test_an_event_that_ended_a_wait_while_the_run_skipped_it_ends_the_next_one(waiting: Waiting) -> None:
    await waiting.open("first")
    await waiting.paid()
    assert await waiting.journeys.words() == ["matched"]  # which the run does not heed, for it has left
    await waiting.tell(3, "skipped", "first")
    assert await waiting.states() == [("first", 1, "closed")]
    assert (await waiting.open("second")).index == 0


async def test_a_jump_back_to_a_wait_waits_for_the_same_event_once(waiting: Waiting) -> None:
    await waiting.open("first")
    await waiting.paid()
    await waiting.tell(3, "jumped", "first", details={"to": "first"})
    assert (await waiting.open("first", visit=2)).index == 0
    await waiting.tell(4, "matched", "first", visit=2)
    assert (await waiting.open("second")).index is None


async def test_an_event_that_a_run_went_by_before_it_was_told_to_jump_counts_once(waiting: Waiting) -> None:
    """What it went by would have been its end: it jumps from where it was."""
    await waiting.open("first")
    await waiting.paid()
    lines = [
        happened(waiting.run_id, 3, "matched", "active", step_id="first", visit=1),
        happened(waiting.run_id, 4, "jumped", "active", step_id="first", visit=1),
    ]
    await record(waiting.world, *lines)
    assert await waiting.states() == [("first", 1, "matched")]
    assert (await waiting.open("second")).index is None


async def test_a_late_record_of_a_skip_closes_no_newer_wait(waiting: Waiting) -> None:
    await waiting.open("first")
    await waiting.open("first", visit=2)  # by a jump, whose record was faster
    await waiting.tell(4, "jumped", "second", details={"to": "first"})
    await waiting.tell(3, "skipped", "first")
    assert await waiting.states() == [("first", 1, "closed"), ("first", 2, "open")]
    await waiting.paid()
    await waiting.tell(3, "skipped", "first")  # again
    assert await waiting.states() == [("first", 1, "closed"), ("first", 2, "matched")]
