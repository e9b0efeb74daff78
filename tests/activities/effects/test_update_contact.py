import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event

from models.settings import Settings
from models.store import audit
from models.store.session import Database
from tests.activities.effects.world import EffectWorld, said
from tests.activities.world import Crash

UPGRADE = {
    "kind": "update_contact",
    "attributes": {"plan": "gold", "seats": {"run": "seats"}, "vip": None},
    "add_tags": ["  Big   Spender"],
    "remove_tags": ["TRIAL"],
}
SILVER = {"kind": "update_contact", "attributes": {"plan": "silver"}}


@pytest.fixture
async def world(database: Database, settings: Settings) -> EffectWorld:
    return await EffectWorld(database, settings).found(upgrade=UPGRADE, silver=SILVER, tag={"kind": "update_contact", "add_tags": ["x"]})


async def test_attributes_and_tags_are_as_the_step_says(world: EffectWorld) -> None:
    run = await world.contact(attributes={"plan": "free", "vip": True, "renews_on": "2026-05-01"})
    await world.sql("UPDATE contacts SET tags = '{trial,old}', updated_at = '2020-01-01Z'")
    await world.variables(run, seats=5)
    (answer,) = await world.perform([run], "upgrade")
    assert said([answer]) == [("done", None)]
    assert answer.details == {"fields": ["attributes.plan", "attributes.seats", "attributes.vip", "tags"]}
    row = await world.person(run)
    assert row["attributes"] == {"plan": "gold", "seats": 5, "renews_on": "2026-05-01"}
    assert sorted(row["tags"]) == ["big spender", "old"]
    assert row["updated_at"] > datetime(2021, 1, 1, tzinfo=UTC)


async def test_the_audit_names_fields_and_the_run_and_no_values(world: EffectWorld) -> None:
    run = await world.contact()
    await world.variables(run, seats=5)
    await world.perform([run], "upgrade")
    (entry,) = await world.entries("contact.changed")
    assert (entry["actor_kind"], entry["subject_id"]) == ("system", str(world.contacts[run]))
    assert entry["details"] == {
        "fields": ["attributes.plan", "attributes.seats", "tags"],
        "journey_id": str(world.journey_id),
        "version_id": str(world.version_id),
        "run_id": str(run),
        "step_id": "upgrade",
        "visit": 1,
    }
    effect = await world.effect(run)
    assert (effect["state"], effect["kind"]) == ("done", "update_contact")
    assert effect["details"] == {"fields": ["attributes.plan", "attributes.seats", "tags"]}


async def test_what_changes_nothing_says_nothing_to_the_audit(world: EffectWorld) -> None:
    run = await world.contact(attributes={"plan": "silver"})
    await world.sql("UPDATE contacts SET updated_at = '2020-01-01Z'")
    assert said(await world.perform([run], "silver")) == [("done", None)]
    assert await world.entries("contact.changed") == []
    assert (await world.person(run))["updated_at"] == datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"seats": "many"}, "wrong_type:seats"),
        ({"seats": 2.5}, "wrong_type:seats"),
        ({"seats": True}, "wrong_type:seats"),
        ({}, "no_variable:seats"),
        ({"seats": None}, "no_variable:seats"),
    ],
)
async def test_a_value_of_the_wrong_type_is_refused_and_nothing_of_the_step_is_done(
    world: EffectWorld, variables: dict[str, Any], reason: str
) -> None:
    run, other = await world.people(2)
    await world.variables(run, **variables)
    await world.variables(other, seats=3)
    assert said(await world.perform([run, other], "upgrade")) == [("refused", reason), ("done", None)]
    row = await world.person(run)
    assert (row["attributes"], row["tags"]) == ({}, [])
    assert (await world.effect(run))["state"] == "refused"


async def test_an_attribute_that_the_organization_no_longer_has_is_refused(world: EffectWorld) -> None:
    run = await world.contact()
    await world.sql("UPDATE organizations SET attribute_schema = '{}'")
    assert said(await world.perform([run], "silver")) == [("refused", "unknown_attribute:plan")]


async def test_too_many_tags_are_refused(world: EffectWorld) -> None:
    run = await world.contact()
    await world.sql("UPDATE contacts SET tags = ARRAY(SELECT 't' || n FROM generate_series(1, 100) n)")
    assert said(await world.perform([run], "tag")) == [("refused", "too_many_tags")]


async def test_a_contact_that_is_gone_is_refused(world: EffectWorld) -> None:
    gone, here = await world.contact(consent=None), await world.contact()
    await world.forget(gone)
    assert said(await world.perform([gone, here], "silver")) == [("refused", "contact_gone"), ("done", None)]


async def test_the_same_visit_changes_a_contact_once_and_the_next_visit_again(world: EffectWorld) -> None:
    run = await world.contact()
    first = await world.perform([run], "silver")
    await world.sql("""UPDATE contacts SET attributes = '{"plan": "bronze"}'""")
    assert await world.perform([run], "silver") == first
    assert await world.perform([run], "silver", round=3) == first
    assert (await world.person(run))["attributes"] == {"plan": "bronze"}
    await world.perform([run], "silver", visit=2)
    assert (await world.person(run))["attributes"] == {"plan": "silver"}


async def test_killed_before_the_commit_nothing_has_happened_and_the_next_attempt_does_it(
    world: EffectWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await world.people(3)

    async def crash(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(audit, "append", crash)
        await world.perform(runs, "silver")
    assert await world.sql("SELECT * FROM effects") == []
    assert [(await world.person(run))["attributes"] for run in runs] == [{}] * 3
    assert said(await world.perform(runs, "silver")) == [("done", None)] * 3
    assert len(await world.entries("contact.changed")) == 3


async def test_two_attempts_at_once_change_each_contact_once(world: EffectWorld) -> None:
    runs = await world.people(40)
    for answers in await asyncio.gather(*(world.perform(runs, "silver") for _ in range(3))):
        assert said(answers) == [("done", None)] * 40
    assert len(await world.entries("contact.changed")) == 40


async def test_runs_at_different_steps_and_two_runs_of_one_contact_go_in_one_batch(world: EffectWorld) -> None:
    first, second = await world.people(2)
    await world.sql("UPDATE runs SET contact_id = :contact_id WHERE id = :id", contact_id=world.contacts[first], id=second)
    world.contacts[second] = world.contacts[first]
    assert said(await world.perform([first, second], "silver", "tag")) == [("done", None)] * 2
    row = await world.person(first)
    assert (row["attributes"], row["tags"]) == ({"plan": "silver"}, ["x"])


async def test_the_number_of_statements_does_not_grow_with_the_batch(world: EffectWorld) -> None:
    statements: list[str] = []

    def count(*given: Any) -> None:
        statements.append(given[2])

    few, many = await world.people(2), await world.people(40)
    event.listen(world.database.engine.sync_engine, "before_cursor_execute", count)
    try:
        await world.perform(few, "silver", "tag")
        first = len(statements)
        await world.perform(many, "silver", "tag")
    finally:
        event.remove(world.database.engine.sync_engine, "before_cursor_execute", count)
    assert len(statements) - first <= first
