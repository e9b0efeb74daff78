"""How a contact enters another journey by a step, beside those who enter it by an event."""

from typing import Any
from uuid import UUID

import pytest

from models.settings import Settings
from models.store.session import Database
from models.tables.base import new_id
from tests.activities.effects.world import EffectWorld, said
from tests.activities.journeys import Journeys


@pytest.fixture
async def world(database: Database, settings: Settings) -> EffectWorld:
    enter = {"kind": "enter_journey", "journey_id": str(new_id()), "key": "order", "variables": {"order": "order"}}
    return await EffectWorld(database, settings).found(enter=enter)


def target(world: EffectWorld) -> UUID:
    return UUID(world.steps["enter"]["journey_id"])


@pytest.fixture
async def journeys(world: EffectWorld) -> Journeys:
    made = Journeys(world)
    trigger = {"kind": "event", "event": "ordered", "key": "order"}
    await made.publish({"entry": {"triggers": [trigger], "again": "once"}}, target(world))
    return made


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("A-1", "A-1"),
        (12, "12"),
        (12.5, "12.5"),
        (12.0, "12"),
        (1e3, "1000"),
        (1e22, "10000000000000000000000"),
        (2**53 + 1, "9007199254740993"),
        ("12.0", "12.0"),
        (True, "true"),
        ({"b": [1, "x"], "a": None}, '{"a": null, "b": [1, "x"]}'),
        (None, None),
        ("u" * 200, "u" * 200),
    ],
)
async def test_the_same_value_is_the_same_key_from_an_event_and_from_a_journey(
    world: EffectWorld, journeys: Journeys, value: Any, key: str | None
) -> None:
    run = await world.contact()
    await world.variables(run, order=value)
    assert said(await world.perform([run], "enter")) == [("done", None)]
    await journeys.route()
    await journeys.say(world.contacts[run], "ordered", {"order": value})
    await journeys.route()
    [entered] = await journeys.runs(target(world))
    assert (entered["entry_key"], entered["variables"], entered["parent_run_id"]) == (key, {"order": value}, run)
    assert await journeys.outcomes(target(world)) == [("entered", None), ("refused", "entered_before")]


async def test_a_number_is_one_key_however_it_is_written(world: EffectWorld, journeys: Journeys) -> None:
    run = await world.contact()
    for number in (12, 12.0, -0.0, 0, 2**53, 2**53 + 1, float(2**53)):
        await journeys.say(world.contacts[run], "ordered", {"order": number})
        await journeys.route()
    assert [entered["entry_key"] for entered in await journeys.runs(target(world))] == ["12", "0", str(2**53), str(2**53 + 1)]


async def test_a_key_that_is_too_long_is_refused_and_not_cut(world: EffectWorld, journeys: Journeys) -> None:
    for ending in "AB":
        run = await world.contact()
        await world.variables(run, order="u" * 200 + ending)
        await world.perform([run], "enter")
        await journeys.say(world.contacts[run], "ordered", {"order": "u" * 200 + ending})
        await journeys.route()
    assert await journeys.outcomes(target(world)) == [("refused", "key_too_long")] * 4


async def test_what_happens_after_the_step_counts_although_the_contact_enters_later(world: EffectWorld, journeys: Journeys) -> None:
    await journeys.publish({"exits": [{"name": "paid", "event": "paid"}]}, target(world))
    before, after = await world.contact(), await world.contact()
    await journeys.pause(target(world))
    await journeys.say(world.contacts[before], "paid")
    await journeys.route()
    await world.perform([before, after], "enter")
    await journeys.say(world.contacts[after], "paid")
    await journeys.route()
    await journeys.resume(target(world))
    await journeys.route()
    ended = {run["parent_run_id"]: run["exit_reason"] for run in await journeys.runs(target(world))}
    assert ended == {
        before: None,
        after: "exit_rule:paid",
    }
