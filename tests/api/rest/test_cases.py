"""Cases beside a journey: kept, run, and in the way of whatever does not pass them."""

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text

from api.dependencies import Services
from models.store.session import Database
from tests.api.conftest import Person, anonymous
from tests.api.rest.acme import Surroundings, actions

START = "2026-03-02T09:00:00Z"
Document = dict[str, Any]


@pytest_asyncio.fixture(loop_scope="session")
async def journey(alice: Person, around: Surroundings) -> str:
    created = await alice.client.post("/v1/journeys", json={"name": f"J {time.monotonic_ns()}", "draft": around.welcome()})
    return f"/v1/journeys/{created.json()['id']}"


def case(name: str = "who agreed is welcomed", **fields: Any) -> Document:
    contact = {"timezone": "Europe/Berlin", "consents": [{"topic": "news"}]}
    given: Document = {
        "name": name,
        "start": START,
        "given": {"contact": contact},
        "expected": {
            "path": [
                {"kind": "entered"},
                {"kind": "sent", "step": "welcome"},
                {"kind": "waiting", "until": "2026-03-05T09:00:00Z"},
                {"kind": "woke"},
                {"kind": "completed"},
            ],
            "messages": [{"step": "welcome", "subject": "Hello"}],
            "end": {"phase": "completed"},
        },
    }
    return {**given, **fields}


async def add(person: Person, journey: str, document: Document) -> Document:
    answer = await person.client.post(f"{journey}/cases", json=document)
    assert answer.status_code == 201, answer.text
    found: Document = answer.json()
    return found


async def results(person: Person, journey: str, **body: Any) -> list[Document]:
    answer = await person.client.post(f"{journey}/cases/runs", json=body)
    assert answer.status_code == 200, answer.text
    found: list[Document] = answer.json()["results"]
    return found


async def save(person: Person, journey: str, draft: Document) -> None:
    etag = (await person.client.get(journey)).headers["ETag"]
    saved = await person.client.patch(f"{journey}/draft", json={"draft": draft}, headers={"If-Match": etag})
    assert saved.status_code == 200, saved.text


async def test_a_case_is_kept_as_it_was_given_and_passes(alice: Person, journey: str, database: Database) -> None:
    made = await add(alice, journey, case())
    assert made["case"] == case()
    read = await alice.client.get(f"{journey}/cases/{made['id']}")
    assert read.json() == made and (await alice.client.get(f"{journey}/cases")).json()["items"] == [made]
    [result] = await results(alice, journey)
    assert result["passed"] and result["differences"] == []
    changed = await alice.client.put(f"{journey}/cases/{made['id']}", json=case("another name"))
    assert changed.status_code == 200 and changed.json()["name"] == "another name"
    assert (await alice.client.delete(f"{journey}/cases/{made['id']}")).status_code == 204
    assert (await alice.client.get(f"{journey}/cases/{made['id']}")).status_code == 404
    said = await actions(alice, database, journey.rpartition("/")[2])
    assert said == ["journey.created", "journey.case_added", "journey.case_changed", "journey.case_removed"]


async def test_a_name_stands_once(alice: Person, journey: str) -> None:
    await add(alice, journey, case())
    other = await add(alice, journey, case("other"))
    assert (await alice.client.post(f"{journey}/cases", json=case())).status_code == 409
    assert (await alice.client.put(f"{journey}/cases/{other['id']}", json=case())).status_code == 409
    assert (await alice.client.post(f"{journey}/cases", json=case("  other "))).status_code == 409
    assert (await add(alice, journey, case("  third ")))["name"] == "third"


async def test_what_comes_after_the_end_is_told_of_a_case_that_is_tried_and_ignored_in_one_that_is_kept(
    alice: Person, journey: str, database: Database
) -> None:
    """It is refused when a case is saved; one that was saved before that must not keep anybody from publishing."""
    late = case(until="P30D", script=[{"after": "P40D", "event": {"name": "opened"}}])
    [result] = await results(alice, journey, cases=[late])
    assert [(one["where"], one["code"]) for one in result["differences"]] == [("script[0].after", "after_end")]
    await add(alice, journey, case(until="P30D", script=[{"after": "P30D", "event": {"name": "opened"}}]))
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE simulation_cases SET scenario = jsonb_set(scenario, '{script,0,after}', '\"P40D\"')"))
    [result] = await results(alice, journey)
    assert result["passed"] and (await alice.client.post(f"{journey}/versions")).status_code == 201


async def test_what_a_simulation_answers_can_be_saved_as_a_case(alice: Person, journey: str) -> None:
    contact = {"first_name": "Ada", "consents": [{"topic": "news"}]}
    answer = await alice.client.post(f"{journey}/simulations", json={"start": START, "contacts": [contact]})
    [trip] = answer.json()["contacts"]
    made = {"name": "as it is", "start": START, "given": {"contact": contact}, "expected": trip["expected"]}
    await add(alice, journey, made)
    [result] = await results(alice, journey)
    assert result["passed"] and result["got"] == trip["expected"]


async def test_a_failing_case_keeps_the_journey_from_being_published_and_shows_the_difference(
    alice: Person, around: Surroundings, journey: str
) -> None:
    await add(alice, journey, case())
    await add(alice, journey, case("who never agreed gets nothing", given={"contact": {}}, expected={"messages": []}))
    assert (await alice.client.post(f"{journey}/versions")).status_code == 201
    draft = around.welcome()
    draft["steps"]["pause"] |= {"duration": "P4D", "next": "once_more"}
    draft["steps"]["once_more"] = {**draft["steps"]["welcome"], "next": None}
    await save(alice, journey, draft)
    refused = await alice.client.post(f"{journey}/versions")
    assert refused.status_code == 422 and refused.headers["content-type"] == "application/problem+json"
    document = refused.json()
    assert document["code"] == "cases_failed" and document["detail"].startswith("1 of 2 cases failed ('who agreed is welcomed'): ")
    told = {error["path"]: error["message"] for error in document["errors"]}
    assert told == {
        "cases[who agreed is welcomed].path[2].until": "Expected '2026-03-05T09:00:00+00:00', got '2026-03-06T09:00:00+00:00'.",
        "cases[who agreed is welcomed].path[4]": "Nothing was expected here, but sent at once_more happened.",
        "cases[who agreed is welcomed].messages[1]": "No message was expected here, but once_more sent one.",
    }
    assert [version["number"] for version in (await alice.client.get(f"{journey}/versions")).json()["items"]] == [1]
    draft = around.welcome(name="Hello")
    await save(alice, journey, draft)
    assert (await alice.client.post(f"{journey}/versions")).status_code == 201


async def test_every_way_of_publishing_runs_the_cases(alice: Person, around: Surroundings, journey: str) -> None:
    assert (await alice.client.post(f"{journey}/versions")).status_code == 201
    await save(alice, journey, around.welcome(name="Changed"))
    plan = (await alice.client.post(f"{journey}/publish-plans")).json()
    await add(alice, journey, case("fails", expected={"messages": []}))
    body = {"fingerprint": plan["fingerprint"], "choices": []}
    answer = await alice.client.put(f"{journey}/publish-plans/{plan['id']}/execution", json=body)
    assert answer.status_code == 422 and answer.json()["code"] == "cases_failed"
    await alice.client.patch("/v1/organization", json={"approval_required": True})
    assert (await alice.client.post(f"{journey}/versions")).json()["code"] == "cases_failed"


async def test_cases_that_take_too_long_are_given_up_and_nothing_is_published(
    alice: Person, journey: str, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = {"a": {"kind": "wait", "duration": "PT1M", "next": "b"}, "b": {"kind": "wait", "duration": "PT1M", "next": "a"}}
    await save(alice, journey, {"start": "a", "steps": pauses, "max_visits": 5_000})
    made = await add(alice, journey, case(expected={"messages": []}))
    with monkeypatch.context() as hasty:
        for processor in (services.simulating, services.passing):
            hasty.setattr(processor, "longest", timedelta(milliseconds=20))
        for answer in (await alice.client.post(f"{journey}/cases/runs"), await alice.client.post(f"{journey}/versions")):
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert "Nothing was changed." in answer.json()["detail"] and "a shorter `until`" in answer.json()["detail"]
        assert (await alice.client.get(f"{journey}/versions")).json()["items"] == []
        shorter = case(expected={"messages": []}, until="PT1H")
        assert (await alice.client.put(f"{journey}/cases/{made['id']}", json=shorter)).status_code == 200
    assert (await alice.client.post(f"{journey}/versions")).status_code == 201


async def test_simulations_do_not_keep_a_publication_waiting(alice: Person, journey: str, services: Services) -> None:
    await add(alice, journey, case())
    go = threading.Event()
    others = [alice.organization_id, uuid4()]
    busy = [asyncio.create_task(services.simulating.work(who, "It", "", lambda heed: go.wait(60))) for who in others]
    await asyncio.sleep(0)  # every place is taken
    try:
        assert (await alice.client.post(f"{journey}/versions")).status_code == 201
        assert not any(task.done() for task in busy)
    finally:
        go.set()
        await asyncio.gather(*busy)


async def test_a_case_that_names_a_step_that_is_gone_fails_and_says_so(alice: Person, around: Surroundings, journey: str) -> None:
    given = {**case()["given"], "sends": {"welcome": "bounced"}}
    await add(alice, journey, case(given=given, expected={"messages": [{"step": "welcome"}]}))
    draft = {"start": "hello", "steps": {"hello": {**around.welcome()["steps"]["welcome"], "next": None}}}
    await save(alice, journey, draft)
    [result] = await results(alice, journey)
    assert [(one["where"], one["code"]) for one in result["differences"]] == [("given.sends.welcome", "unknown_step")]
    expecting = case(expected={"messages": [{"step": "welcome"}, {"step": "hello"}], "path": [{"kind": "sent", "step": "welcome"}]})
    [result] = await results(alice, journey, cases=[expecting])
    assert ("path[0]", "unknown_step") in [(one["where"], one["code"]) for one in result["differences"]]


async def test_the_wall_clock_does_not_matter(alice: Person, journey: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    from models.tables import base

    await add(alice, journey, case())
    monkeypatch.setattr(base, "utc_now", lambda: datetime(2031, 7, 1, tzinfo=UTC))
    first, second = [await results(alice, journey) for _ in range(2)]
    assert first == second and first[0]["passed"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"name": ""}, "name"),
        ({"start": "yesterday"}, "start"),
        ({"start": "2026-03-02T09:00:00"}, "start"),
        ({"start": "9999-12-31T00:00:00Z"}, "start"),
        ({"expected": {}}, "expected"),
        ({"name": "   "}, "name"),
        ({"given": {"contact": {"shoe": 44}}}, "given.contact.shoe"),
        ({"given": {"contact": {"timezone": "X/Y"}}}, "given.contact.timezone"),
        ({"given": {"contact": {"attributes": {"shoe": 44}}}}, "given.contact.attributes.shoe"),
        ({"given": {"contact": {"consents": [{"topic": "gossip"}]}}}, "given.contact.consents[0].topic"),
        ({"script": [{"after": "P1D", "change": {"timezone": "X/Y"}}]}, "script[0].change.timezone"),
        ({"until": "P2D", "script": [{"after": "P2D", "review": "approved"}, {"after": "P3D", "review": "approved"}]}, "script[1].after"),
        ({"script": [{"after": "P1D", "event": {"name": ""}}]}, "script[0].event.name"),
        ({"script": [{"after": "P1D"}]}, "script[0]"),
        ({"expected": {"path": [{"kind": "entered"}, {"kind": "sended"}]}}, "expected.path[1].kind"),
        ({"expected": {"end": {"phase": "completed", "reason": "thanked"}}}, "expected.end.reason"),
    ],
)
async def test_a_malformed_case_is_refused_with_the_fields_path(alice: Person, journey: str, fields: Document, path: str) -> None:
    answer = await alice.client.post(f"{journey}/cases", json=case(**fields))
    assert answer.status_code == 422 and [error["path"] for error in answer.json()["errors"]] == [path]
    kept = await add(alice, journey, case("kept"))
    answer = await alice.client.put(f"{journey}/cases/{kept['id']}", json=case(**fields))
    assert answer.status_code == 422 and [error["path"] for error in answer.json()["errors"]] == [path]


async def test_cases_need_a_login_and_belong_to_one_organization(alice: Person, charlie: Person, journey: str, app: Any) -> None:
    made = await add(alice, journey, case())
    async with anonymous(app) as nobody:
        assert (await nobody.get(f"{journey}/cases")).status_code == 401
        assert (await nobody.post(f"{journey}/cases", json=case())).status_code == 401
        assert (await nobody.post(f"{journey}/cases/runs")).status_code == 401
    assert (await charlie.client.get(f"{journey}/cases/{made['id']}")).status_code == 404
    assert (await charlie.client.delete(f"{journey}/cases/{made['id']}")).status_code == 404


async def test_cases_travel_with_the_journey(alice: Person, charlie: Person, journey: str) -> None:
    await add(alice, journey, case())
    exported = (await alice.client.get(f"{journey}/export")).json()
    assert exported["cases"] == [case()]
    connection = {"name": "Mail", "host": "127.0.0.1", "port": 1, "security": "none", "sender_address": "a@example.com"}
    assert (await charlie.client.post("/v1/connections", json=connection)).status_code == 201
    imported = await charlie.client.post("/v1/journey-imports", json={"document": exported})
    assert imported.status_code == 201, imported.text
    there = f"/v1/journeys/{imported.json()['journey_id']}"
    assert [one["case"] for one in (await charlie.client.get(f"{there}/cases")).json()["items"]] == [case()]
    again = await charlie.client.post("/v1/journey-imports", json={"document": exported, "replace": True})
    assert again.json()["outcome"] == "unchanged"
    fewer = await charlie.client.post("/v1/journey-imports", json={"document": {**exported, "cases": []}, "replace": True})
    assert fewer.json()["outcome"] == "updated" and (await charlie.client.get(f"{there}/cases")).json()["items"] == []
    wrong = case(expected={"path": [{"kind": "sent"}]})
    refused = await charlie.client.post("/v1/journey-imports", json={"document": {**exported, "cases": [wrong]}, "replace": True})
    assert [error["path"] for error in refused.json()["errors"]] == ["document.cases[0].expected.path[0].kind"]
    unknown = case(given={"contact": {"timezone": "X/Y"}})
    refused = await charlie.client.post("/v1/journey-imports", json={"document": {**exported, "cases": [unknown]}, "replace": True})
    assert [error["path"] for error in refused.json()["errors"]] == ["document.cases[0].given.contact.timezone"]
    without = {name: value for name, value in exported.items() if name != "cases"}
    await add(charlie, there, case("mine"))
    assert (await charlie.client.post("/v1/journey-imports", json={"document": without, "replace": True})).json()["outcome"] == "unchanged"
    assert len((await charlie.client.get(f"{there}/cases")).json()["items"]) == 1
