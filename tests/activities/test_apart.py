"""One run for which a step cannot be answered takes no other of its batch with it."""

import random
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from temporalio.testing import ActivityEnvironment

from activities import waits as waits_activity
from activities.branches import BranchActivities
from activities.contracts.steps import StepAnswer, VisitBatch
from activities.effects import update_contact
from activities.versions import Versions
from activities.waits import WaitActivities
from models.domain import wait_time
from models.domain.errors import Invalid
from models.settings import Settings
from models.store import branches, waits
from models.store.session import Database, OrganizationSession
from tests.activities.effects.world import EffectWorld
from tests.activities.world import NOON

DUE = {"kind": "wait", "date": {"field": "attributes.renews_on", "offset": "-P7D"}}
BRANCH = {"kind": "branch", "conditions": [{"when": {"field": "attributes.plan", "is": "equals", "value": "gold"}}]}
WAIT_FOR = {"kind": "wait_for", "events": [{"event": "paid"}], "timeout": "P1D"}


@pytest.fixture
async def world(database: Database, settings: Settings) -> EffectWorld:
    return await EffectWorld(database, settings).found(
        due=DUE,
        branch=BRANCH,
        listen=WAIT_FOR,
        silver={"kind": "update_contact", "attributes": {"plan": "silver"}},
    )


Question = Callable[[VisitBatch], Any]


async def ask(question: Question, batch: VisitBatch) -> list[StepAnswer]:
    answers: list[StepAnswer] = await ActivityEnvironment().run(question, batch)
    assert [answer.run_id for answer in answers] == [visit.run_id for visit in batch.visits]
    return answers


def failed(answers: list[StepAnswer]) -> dict[UUID, str | None]:
    return {answer.run_id: answer.reason for answer in answers if answer.failed}


async def test_a_date_at_the_calendars_end_is_answered_like_the_others(world: EffectWorld) -> None:
    usual = [await world.contact(attributes={"renews_on": "2026-11-01"}) for _ in range(5)]
    empty = await world.contact(attributes={"renews_on": "0001-01-01"})
    answers = await ask(WaitActivities(world.database, Versions()).plan_waits, world.batch([*usual, empty], "due"))
    assert [answer.until is not None for answer in answers] == [True] * 5 + [False]
    assert (answers[-1].reason, answers[-1].failed) == ("date_passed", False)


async def test_a_wait_that_cannot_be_planned_fails_alone(world: EffectWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [await world.contact(attributes={"renews_on": "2026-11-01"}) for _ in range(6)]
    bad = await world.contact(attributes={"renews_on": "bad"})
    random.Random(1).shuffle(runs := [*runs, bad])

    def plan(step: Any, place: Any, value: Any, now: Any) -> Any:
        if value == "bad":
            raise OverflowError("date value out of range")
        return wait_time.plan(step, place, value, now)

    monkeypatch.setattr(waits_activity, "plan", plan)
    answers = await ask(WaitActivities(world.database, Versions()).plan_waits, world.batch(runs, "due"))
    assert failed(answers) == {bad: "step_failed:OverflowError"}
    assert all(answer.until is not None for answer in answers if answer.run_id != bad)


async def test_a_condition_that_the_database_cannot_judge_fails_alone(world: EffectWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [await world.contact(attributes={"plan": "gold"}) for _ in range(5)]
    bad, choose = {runs[1], runs[4]}, branches.choose

    async def choosing(session: OrganizationSession, conditions: Any, contacts: Mapping[UUID, UUID], now: Any) -> Any:
        if bad & contacts.keys():
            await session.execute(text("SELECT 1/0"))  # as a cast of what these contacts hold would
        return await choose(session, conditions, contacts, now)

    monkeypatch.setattr(branches, "choose", choosing)
    answers = await ask(BranchActivities(world.database, Versions()).choose_branches, world.batch(runs, "branch"))
    assert failed(answers) == dict.fromkeys(bad, "step_failed:DataError")
    assert [answer.index for answer in answers if not answer.failed] == [0, 0, 0]


async def test_a_wait_that_cannot_be_opened_leaves_the_others_open(world: EffectWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await world.people(4)
    opening = waits.open_waits

    async def open_waits(session: OrganizationSession, version_id: UUID, definition: Any, new: Any, now: Any) -> Any:
        found = await opening(session, version_id, definition, new, now)
        if any(each.run_id == runs[2] for each in new):
            await session.execute(text("SELECT 1/0"))
        return found

    monkeypatch.setattr(waits, "open_waits", open_waits)
    answers = await ask(WaitActivities(world.database, Versions()).open_waits, world.batch(runs, "listen"))
    assert failed(answers) == {runs[2]: "step_failed:DataError"}
    rows = await world.sql("SELECT run_id FROM waits WHERE state = 'open'")
    assert {row["run_id"] for row in rows} == {runs[0], runs[1], runs[3]}


async def test_a_step_that_cannot_be_done_for_one_is_done_once_for_the_others(world: EffectWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = await world.people(4)
    changing = update_contact._change

    def change(work: Any, visit: Any, *given: Any) -> Any:
        if visit.run_id == runs[0]:
            raise ZeroDivisionError
        return changing(work, visit, *given)

    monkeypatch.setattr(update_contact, "_change", change)
    answers = await world.perform(runs, "silver")
    assert failed(answers) == {runs[0]: "step_failed:ZeroDivisionError"}
    assert [(await world.person(run))["attributes"].get("plan") for run in runs] == [None, "silver", "silver", "silver"]
    assert len(await world.entries("contact.changed")) == 3
    monkeypatch.undo()  # a person retries the run
    assert failed(await world.perform(runs, "silver", round=1)) == {}
    assert len(await world.entries("contact.changed")) == 4


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("SELECT", {}, psycopg.OperationalError("the connection is lost")),
        ConnectionResetError(),
        Invalid.field("when", "malformed", "It is malformed."),
    ],
)
async def test_what_does_not_lie_with_a_run_is_tried_again_for_all(
    world: EffectWorld, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked = 0

    async def choose(*_: Any) -> Any:
        nonlocal asked
        asked += 1
        raise error

    monkeypatch.setattr(branches, "choose", choose)
    runs = await world.people(2)
    with pytest.raises(type(error)):
        await ask(BranchActivities(world.database, Versions()).choose_branches, world.batch(runs, "branch", now=NOON))
    assert asked == 1
