import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import event, text

from api.commands import resumptions
from models.store import resumptions as store
from models.store.resumptions import LeftOut
from models.store.session import Database
from models.tables.base import new_id, utc_now
from models.tables.journeys import Campaign
from tests.api.conftest import Person, anonymous
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions
from tests.api.rest.fake_temporal import FakeTemporal
from tests.api.rest.test_publish_plans import standing


@pytest_asyncio.fixture(loop_scope="session")
async def journey(alice: Person, around: Surroundings, database: Database) -> str:
    journey_id = await acme.publish(alice, around)
    await standing(database, alice, journey_id, around, [("pause", "waiting")] * 3)
    return journey_id


async def paused(person: Person, journey: str) -> None:
    answer = await person.client.put(f"/v1/journeys/{journey}/pause", json={"reason": "wrong price"})
    assert answer.status_code == 202


MANNER = {"spread": "PT10M", "drop_older_than": "P1D", "recheck_entry": True, "reason": "the price is right now"}


async def test_the_manner_of_a_resumption_reaches_the_workflow_and_the_record(
    alice: Person, journey: str, temporal: FakeTemporal, database: Database
) -> None:
    await paused(alice, journey)
    outlook = (await alice.client.get(f"/v1/journeys/{journey}/resumption")).json()
    assert (outlook["runs"], outlook["paused_at"] is None) == (3, False)
    answer = await alice.client.post(f"/v1/journeys/{journey}/resumptions", json=MANNER)
    assert answer.status_code == 202, answer.text
    [control] = [each.argument for each in temporal.started.values() if getattr(each.argument, "command", None) == "resume"]
    assert (control.spread.total_seconds(), control.drop_older_than.days, control.recheck_entry) == (600, 1, True)
    assert (await actions(alice, database, journey)).count("journey.resume_requested") == 1


async def beneath(database: Database, person: Person, journey: str, reason: str, since: str = "2 hours") -> None:
    """The runs are held at the send for this reason, and look again tomorrow; then the journey was paused."""
    async with database.organization(person.organization_id) as session:
        of = {"o": person.organization_id, "journey": UUID(journey), "reason": reason, "since": since}
        await session.execute(
            text(
                """UPDATE runs SET status = 'paused', beneath = 'held', step_id = 'welcome', reason = 'wrong price',
                     wake_at = now() + interval '1 day', sequence = 3 WHERE organization_id = :o AND journey_id = :journey"""
            ),
            of,
        )
        await session.execute(
            text(
                """INSERT INTO run_events (id, organization_id, run_id, sequence, kind, step_id, visit, details, occurred_at)
                   SELECT gen_random_uuid(), :o, r.id, l.sequence, l.kind, 'welcome', 1, jsonb_build_object('reason', l.reason), now()
                   FROM runs r CROSS JOIN (VALUES (1, 'held', 'quiet_hours'), (2, 'held', CAST(:reason AS text)),
                                                  (3, 'paused', 'wrong price')) AS l(sequence, kind, reason)
                   WHERE r.organization_id = :o AND r.journey_id = :journey"""
            ),
            of,
        )
        await session.execute(text("UPDATE journeys SET paused_at = now() - CAST(:since AS interval) WHERE id = :journey"), of)


@pytest.mark.parametrize(
    ("reason", "status", "let_go"),
    [
        ("journey_paused", "active", True),
        ("run_paused", "active", True),
        ("authentication_failed", "active", True),  # mended meanwhile
        ("authentication_failed", "broken", False),
        ("quiet_hours", "active", False),
    ],
)
async def test_who_was_held_only_by_the_pause_or_a_connection_that_is_mended_is_due_and_can_be_dropped(
    alice: Person, journey: str, around: Surroundings, database: Database, reason: str, status: str, let_go: bool
) -> None:
    await paused(alice, journey)
    await beneath(database, alice, journey, reason)
    async with database.organization(alice.organization_id) as session:
        await session.execute(
            text("UPDATE connections SET status = :status WHERE id = :id"), {"id": around.connection_id, "status": status}
        )
    path = f"/v1/journeys/{journey}/resumption"
    outlook = (await alice.client.get(path, params={"drop_older_than": "PT1H"})).json()
    assert outlook["by_status"] == {"held": 3}
    expected = 3 if let_go else 0
    assert [outlook[name] for name in ("due", "sends_due", "would_drop")] == [expected] * 3
    assert outlook["waiting_for_connection"] == (3 if status == "broken" else 0)
    assert [each["runs"] for each in outlook["overdue"]] == [expected] * 3 + [0, 0]  # for two hours, and not for a day
    assert outlook["oldest_due_at"] == (outlook["paused_at"] if let_go else None)
    assert (await alice.client.get(path, params={"drop_older_than": "P1D"})).json()["would_drop"] == 0
    async with database.organization(alice.organization_id) as session:
        since = await store.paused_at(session, "journey", UUID(journey))
        assert since is not None
        left_out = await store.leave_out(session, "journey", UUID(journey), LeftOut(timedelta(hours=1)), since, utc_now())
    assert left_out == {"overdue": expected}


async def test_who_waits_for_a_broken_connection_is_counted_apart_also_once_it_was_to_look_again_and_can_be_dropped(
    alice: Person, journey: str, around: Surroundings, database: Database
) -> None:
    await paused(alice, journey)
    await beneath(database, alice, journey, "authentication_failed")
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE connections SET status = 'broken' WHERE id = :id"), {"id": around.connection_id})
        looked = """UPDATE runs SET wake_at = now() - interval '2 hours' WHERE organization_id = :o AND id IN (
                      SELECT id FROM runs WHERE organization_id = :o AND journey_id = :journey ORDER BY id LIMIT 2)"""
        await session.execute(text(looked), {"o": alice.organization_id, "journey": UUID(journey)})
    path = f"/v1/journeys/{journey}/resumption"
    outlook = (await alice.client.get(path, params={"drop_older_than": "PT1H"})).json()
    assert {name: outlook[name] for name in ("runs", "due", "waiting_for_connection", "sends_due", "would_drop", "oldest_due_at")} == {
        "runs": 3,
        "due": 0,
        "waiting_for_connection": 3,
        "sends_due": 0,
        "would_drop": 2,
        "oldest_due_at": None,
    }
    assert [each["runs"] for each in outlook["overdue"]] == [0] * 5
    async with database.organization(alice.organization_id) as session:
        since = await store.paused_at(session, "journey", UUID(journey))
        assert since is not None
        left_out = await store.leave_out(session, "journey", UUID(journey), LeftOut(timedelta(hours=1)), since, utc_now())
    assert left_out == {"overdue": 2}


async def in_a_campaign(database: Database, person: Person, journey: str) -> UUID:
    """One of the journey's runs is of an occurrence of this campaign."""
    of = {"o": person.organization_id, "journey": UUID(journey), "parent": new_id(), "occurrence": new_id()}
    async with database.organization(person.organization_id) as session:
        version_id = await session.scalar(text("SELECT id FROM journey_versions WHERE journey_id = :journey"), of)
        for campaign_id, parent_id in ((of["parent"], None), (of["occurrence"], of["parent"])):
            session.add(
                Campaign(
                    id=campaign_id,
                    organization_id=of["o"],
                    name="May",
                    journey_id=of["journey"],
                    version_id=version_id,
                    parent_id=parent_id,
                    nominal_at=None if parent_id is None else utc_now(),
                )
            )
            await session.flush()
        await session.execute(
            text("UPDATE runs SET campaign_id = :occurrence WHERE id = (SELECT id FROM runs WHERE journey_id = :journey LIMIT 1)"), of
        )
    return of["parent"]


@pytest.mark.parametrize("kind", ["journey", "campaign"])
async def test_at_a_wait_nothing_is_due_and_definitions_are_not_taken_apart_for_each_run(
    alice: Person, journey: str, database: Database, kind: store.Kind
) -> None:
    subject, runs = (UUID(journey), 3) if kind == "journey" else (await in_a_campaign(database, alice, journey), 1)
    asked: list[Any] = []

    def note(*given: Any) -> None:
        asked.append((given[1], given[3]))

    now = utc_now()
    since, wanted = now - timedelta(hours=2), LeftOut(timedelta(hours=1))
    async with database.organization(alice.organization_id) as session:
        busy = text("UPDATE runs SET status = 'paused', beneath = 'active', step_id = :step WHERE journey_id = :journey")
        for step, due in (("welcome", runs), ("pause", 0)):
            await session.execute(busy, {"journey": UUID(journey), "step": step})
            event.listen(database.engine.sync_engine, "before_execute", note)
            try:
                [place] = await store.standing(session, kind, subject, since, now)
                leaving = await store.count_leaving(session, kind, subject, wanted, since, now)
            finally:
                event.remove(database.engine.sync_engine, "before_execute", note)
            assert (place.step_id, place.runs, place.due, leaving) == (step, runs, due, {"overdue": due})
        for query, parameters in asked:
            plan = "\n".join((await session.execute(text(f"EXPLAIN (VERBOSE) {query}"), parameters)).scalars())
            assert "hashed SubPlan" in plan
    assert len(asked) == 4


async def test_numbers_that_take_too_long_are_given_up_with_a_way_out(
    database: Database, alice: Person, journey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
        with monkeypatch.context() as hasty:
            hasty.setattr(resumptions, "LOOK", timedelta(milliseconds=200))
            answer = await alice.client.get(f"/v1/journeys/{journey}/resumption")
    assert (answer.status_code, answer.json()["code"], "Retry-After" in answer.headers) == (503, "unavailable", True)
    assert "can be lifted without these numbers" in answer.json()["detail"]
    assert (await alice.client.get(f"/v1/journeys/{journey}/resumption")).status_code == 200


async def test_who_asks_for_a_manner_of_what_is_not_paused_is_told_so(alice: Person, journey: str, temporal: FakeTemporal) -> None:
    path = f"/v1/journeys/{journey}/resumptions"
    refused = await alice.client.post(path, json=MANNER)
    assert (refused.status_code, "not paused" in refused.json()["detail"]) == (409, True)
    assert (await alice.client.post(path, json={})).status_code == 202  # at once: nothing to do
    assert not temporal.started


async def test_of_two_resumptions_at_the_same_moment_one_is_obeyed_and_on_record(
    alice: Person, journey: str, temporal: FakeTemporal, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await paused(alice, journey)
    path = f"/v1/journeys/{journey}/resumptions"
    ways: list[dict[str, Any]] = [MANNER, {"reason": "at once"}]

    async def ask(way: int, key: str | None = None) -> Response:
        return await alice.client.post(path, json=ways[way], headers={"Idempotency-Key": key} if key else {})

    async def asked() -> int:
        return (await actions(alice, database, journey)).count("journey.resume_requested")

    answers = await asyncio.gather(ask(0), ask(1))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    winner = next(way for way, answer in enumerate(answers) if answer.status_code == 202)
    assert "being resumed already" in answers[1 - winner].json()["detail"] and await asked() == 1
    words = [each.argument for each in temporal.started.values() if getattr(each.argument, "command", None) == "resume"]
    assert [word.reason for word in words] == [ways[winner]["reason"]]
    assert (await ask(winner)).status_code == 202 and await asked() == 1  # as after a 503
    assert (await ask(winner, "somebody-else")).status_code == 409 and await asked() == 1
    await paused(alice, journey)  # what had been asked for lifts this pause no more
    assert (await ask(1 - winner)).status_code == 202 and await asked() == 2
    monkeypatch.setattr(resumptions, "LIFTED_WITHIN", timedelta(0))  # the first one's workflow was never started, and nobody repeats it
    assert (await ask(winner, "another-try")).status_code == 202 and await asked() == 3


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"spread": "PT0S"}, "spread"),
        ({"spread": "P31D"}, "spread"),
        ({"drop_older_than": "-PT1S"}, "drop_older_than"),
        ({"drop_older_than": "P3028Y"}, "drop_older_than"),
    ],
)
async def test_a_manner_out_of_range_says_where(alice: Person, journey: str, wrong: dict[str, Any], path: str) -> None:
    await paused(alice, journey)
    answer = await alice.client.post(f"/v1/journeys/{journey}/resumptions", json=wrong)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, path)


@pytest.mark.parametrize("kind", ["journeys", "campaigns"])
async def test_a_duration_is_asked_for_in_the_same_words_where_it_stands_in_the_address(alice: Person, journey: str, kind: str) -> None:
    answer = await alice.client.get(f"/v1/{kind}/{journey}/resumption", params={"drop_older_than": "5"})
    posted = await alice.client.post(f"/v1/{kind}/{journey}/resumptions", json={"drop_older_than": "5"})
    [asked], [said] = answer.json()["errors"], posted.json()["errors"]
    assert (answer.status_code, asked["path"]) == (422, "query.drop_older_than") and asked["message"] == said["message"]


async def test_it_needs_a_login_and_is_nobody_elses(alice: Person, charlie: Person, app: FastAPI, journey: str) -> None:
    for method, path in (("GET", f"/v1/journeys/{journey}/resumption"), ("POST", f"/v1/journeys/{journey}/resumptions")):
        async with anonymous(app) as nobody:
            assert (await nobody.request(method, path, json={} if method == "POST" else None)).status_code == 401
        assert (await charlie.client.request(method, path, json={} if method == "POST" else None)).status_code == 404
