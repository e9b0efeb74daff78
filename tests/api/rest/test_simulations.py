"""Simulations over the API: what they answer, what they refuse, and that they touch nothing."""

import json
import re
import socket
import time
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from api.dependencies import Services
from deploy.environment import ROOT
from models.settings import Settings
from models.store.session import Database
from tests.api.conftest import Person, anonymous
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings
from tests.api.rest.fake_temporal import FakeTemporal

START = "2026-03-02T09:00:00Z"  # a Monday
Document = dict[str, Any]


async def journey(person: Person, steps: Document, start: str, **rules: Any) -> str:
    draft = {"start": start, "steps": steps, **rules}
    created = await person.client.post("/v1/journeys", json={"name": f"J {time.monotonic_ns()}", "draft": draft})
    assert created.status_code == 201, created.text
    return f"/v1/journeys/{created.json()['id']}"


async def simulate(person: Person, path: str, **body: Any) -> Document:
    answer = await person.client.post(f"{path}/simulations", json={"start": START, **body})
    assert answer.status_code == 200, answer.text
    found: Document = answer.json()
    return found


def agreed(**fields: Any) -> Document:
    return {"timezone": "Europe/Berlin", "consents": [{"topic": "news"}], **fields}


def send(around: Surroundings, next: str | None = None, **fields: Any) -> Document:
    return {"kind": "send", "template_id": str(around.template_id), "topic_id": str(around.topic_id), "next": next, **fields}


def kinds(trip: Document) -> list[str]:
    return [entry["kind"] for entry in trip["path"] if entry["source"] == "event"]


async def test_a_draft_is_simulated_for_an_invented_contact(alice: Person, around: Surroundings) -> None:
    path = await journey(alice, around.welcome()["steps"], "welcome")
    found = await simulate(alice, path, contacts=[agreed(), agreed(consents=[])])
    agreeing, refusing = found["contacts"]
    assert kinds(agreeing) == ["entered", "sent", "waiting", "woke", "completed"]
    assert agreeing["wakes"] == ["2026-03-05T09:00:00Z"] and agreeing["status"] == "completed"
    [message] = agreeing["messages"]
    assert (message["subject"], message["text"], message["at"]) == ("Hello", "https://unsubscribe.invalid/", START)
    assert [(one["check"], one["outcome"]) for one in agreeing["decisions"]] == [("consent", "send"), ("quiet_hours", "send")]
    [decision] = refusing["decisions"]
    assert decision["reason"] == "no_consent" and decision["words"] == "the contact never agreed to Product news by email"
    assert refusing["messages"] == [] and found["summary"]["steps"][0]["not_sent"] == {"no_consent": 1}
    assert found["summary"]["volume"] == [{"hour": START, "channel": "email", "messages": 1}]


async def test_a_version_is_simulated_as_it_was_published(alice: Person, around: Surroundings, database: Database) -> None:
    identifier = await acme.publish(alice, around)
    async with database.organization(alice.organization_id) as session:
        await acme.add_version(session, alice.organization_id, around.template_id, 2, "Hello again")
    path = f"/v1/journeys/{identifier}"
    subjects = {}
    for version in (1, None):
        found = await simulate(alice, path, version=version, contacts=[agreed()])
        subjects[version] = found["contacts"][0]["messages"][0]["subject"]
    assert subjects == {1: "Hello", None: "Hello again"}
    assert (await alice.client.post(f"{path}/simulations", json={"version": 7, "contacts": [{}]})).status_code == 404


async def test_a_real_contact_is_simulated_as_it_is(alice: Person, around: Surroundings, database: Database) -> None:
    path = await journey(alice, around.welcome()["steps"], "welcome")
    real = {"contact_ids": [str(around.contact_id)]}
    assert (await simulate(alice, path, **real))["contacts"][0]["decisions"][0]["reason"] == "no_consent"
    line = {"contact_id": str(around.contact_id), "topic_id": str(around.topic_id), "channel": "email", "status": "granted"}
    assert (await alice.client.post("/v1/consents", json=[{**line, "method": "form", "source": "shop"}])).status_code == 201
    assert len((await simulate(alice, path, **real))["contacts"][0]["messages"]) == 1
    email = (await alice.client.get(f"/v1/contacts/{around.contact_id}")).json()["email"]
    assert (await alice.client.post("/v1/suppressions", json={"address": email, "channel": "email"})).status_code == 201
    assert (await simulate(alice, path, **real))["contacts"][0]["decisions"][0]["reason"] == "suppressed"


async def test_the_script_happens_at_its_time(alice: Person, around: Surroundings) -> None:
    await alice.client.patch("/v1/organization", json={"attribute_schema": {"city": {"type": "string"}}})
    steps = {
        "hello": send(around, "opens"),
        "opens": {"kind": "wait_for", "events": [{"event": "opened", "next": "where"}], "timeout": "P2D", "timeout_next": None},
        "where": {"kind": "wait", "until": {"time": "08:00"}, "next": "berlin"},
        "berlin": {
            "kind": "branch",
            "conditions": [{"name": "there", "when": {"field": "attributes.city", "is": "equals", "value": "Berlin"}, "next": "again"}],
        },
        "again": send(around),
    }
    path = await journey(alice, steps, "hello")
    script = [
        {"after": "PT2H", "event": {"name": "opened"}},
        {"after": "PT3H", "change": {"attributes": {"city": "Berlin"}, "timezone": "America/New_York"}},
    ]
    [trip] = (await simulate(alice, path, contacts=[agreed()], script=script))["contacts"]
    assert kinds(trip) == ["entered", "sent", "waiting", "matched", "waiting", "rescheduled", "woke", "chose", "sent", "completed"]
    waits = [(entry["at"], entry["until"]) for entry in trip["path"] if entry["kind"] in ("waiting", "rescheduled")]
    assert waits == [
        (START, "2026-03-04T09:00:00Z"),
        ("2026-03-02T11:00:00Z", "2026-03-03T07:00:00Z"),  # eight in Berlin
        ("2026-03-02T12:00:00Z", "2026-03-02T13:00:00Z"),  # eight in New York
    ]
    [late] = (await simulate(alice, path, contacts=[agreed()], script=[{"after": "P3D", "event": {"name": "opened"}}]))["contacts"]
    assert kinds(late) == ["entered", "sent", "waiting", "timed_out", "completed"]
    [last] = (await simulate(alice, path, contacts=[agreed()], script=[{"after": "P2D", "event": {"name": "opened"}}]))["contacts"]
    assert kinds(last)[:4] == ["entered", "sent", "waiting", "matched"]  # at the very moment of the timeout


async def test_bad_input_is_refused_with_its_place(alice: Person, around: Surroundings) -> None:
    path = await journey(alice, around.welcome()["steps"], "welcome")

    async def refused(**body: Any) -> list[tuple[str, str]]:
        answer = await alice.client.post(f"{path}/simulations", json={"contacts": [{}], **body})
        assert answer.status_code == 422, answer.text
        return [(error["path"], error["code"]) for error in answer.json()["errors"]]

    assert await refused(contacts=[]) == [("body", "value_error")]
    assert await refused(script=[{"after": "P1D"}]) == [("script[0]", "one_of")]
    for after in ("3600", "1 day", True, None):
        assert await refused(script=[{"after": after, "event": {"name": "x"}}]) == [("script[0].after", "malformed_duration")]
    assert await refused(script=[{"after": "-P1D", "event": {"name": "x"}}]) == [("script[0].after", "greater_than_equal")]
    assert await refused(until="P1D", script=[{"after": "P3D", "event": {"name": "x"}}]) == [("script[0].after", "after_end")]
    assert await refused(sends={"pause": "bounced"}) == [("sends.pause", "unknown_step")]
    assert await refused(webhooks={"gone": [{"status": 200}]}) == [("webhooks.gone", "unknown_step")]
    assert await refused(event={"name": "signed up"}) == [("event.name", "no_trigger")]
    assert await refused(contacts=[{"timezone": "Mars/Base"}]) == [("contacts[0].timezone", "unknown_timezone")]
    assert await refused(contacts=[{"consents": [{"topic": "gossip"}]}]) == [("contacts[0].consents[0].topic", "unknown_topic")]
    assert await refused(contacts=[{"attributes": {"shoe": 44}}]) == [("contacts[0].attributes.shoe", "unknown_attribute")]
    assert await refused(script=[{"change": {"email": "nobody"}}]) == [("script[0].change.email", "not_an_email")]
    assert await refused(contact_ids=["0190a1b2-0000-7000-8000-000000000001"]) == [("contact_ids[0]", "unknown_contact")]
    assert await refused(sample={"size": 6_000}) == [("sample.size", "less_than_equal")]
    assert await refused(start="9999-12-31T00:00:00Z") == [("start", "less_than_equal")]
    assert await refused(start="0001-01-01T00:00:00Z") == [("start", "greater_than_equal")]
    assert await refused(contacts=[{"created_at": "0001-01-01T00:00:00+14:00"}]) == [("contacts[0].created_at", "greater_than_equal")]
    assert await refused(until="P4000D") == [("until", "less_than_equal")]


@pytest.mark.parametrize(
    ("outcome", "messages"),
    [("accepted", 1), ("unknown", 1), ("gave_up", 0), ("content_refused", 0), ("bounced", 0), ("opted_out", 0)],
)
async def test_only_what_was_or_may_have_been_sent_counts_as_volume(
    alice: Person, around: Surroundings, outcome: str, messages: int
) -> None:
    path = await journey(alice, around.welcome()["steps"], "welcome")
    found = await simulate(alice, path, contacts=[agreed()], sends={"welcome": outcome}, script=[{"after": "P1D", "control": "retry"}])
    tried = 2 if outcome in ("gave_up", "content_refused") else 1  # by a person; what may have arrived is not sent again
    assert [message["outcome"] for message in found["contacts"][0]["messages"]] == [outcome] * tried
    assert found["summary"]["messages"] == messages == sum(hour["messages"] for hour in found["summary"]["volume"])
    assert outcome != "unknown" or kinds(found["contacts"][0]) == ["entered", "parked", "retried", "parked"]


ROUND: Document = {
    "a": {"kind": "wait", "duration": "PT1M", "next": "b"},
    "b": {"kind": "wait", "duration": "PT1M", "next": "a"},
}


async def test_a_simulation_that_goes_on_and_on_is_told_as_far_as_it_was_looked_at(alice: Person) -> None:
    """More lines than a case can hold, and than anybody reads."""
    path = await journey(alice, ROUND, "a", max_visits=5_000)
    found = await simulate(alice, path, contacts=[{}] * 20)
    assert (found["summary"]["contacts"], found["summary"]["cut"]) == (20, 20)
    assert 1 < len(found["contacts"]) < 20 and len(found["contacts"][0]["path"]) > 1_000
    [expected] = {json.dumps(trip["expected"], sort_keys=True) for trip in found["contacts"]}
    assert json.loads(expected) == {"path": None, "messages": [], "end": {"phase": "waiting", "reason": None}}


async def test_a_simulation_that_takes_too_long_is_given_up_with_a_way_out(
    alice: Person, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await journey(alice, ROUND, "a", max_visits=5_000)
    with monkeypatch.context() as hasty:
        hasty.setattr(services.simulating, "longest", timedelta(milliseconds=20))
        answer = await alice.client.post(f"{path}/simulations", json={"start": START, "contacts": [{}]})  # in the middle of one trip
    assert (answer.status_code, answer.json()["code"], "Retry-After" in answer.headers) == (503, "unavailable", True)
    assert "Simulate fewer contacts, or a shorter period" in answer.json()["detail"]
    assert (await simulate(alice, path, contacts=[{}], until="PT1H"))["summary"]["contacts"] == 1


async def test_variables_that_no_run_could_start_with_are_refused_in_the_same_words(alice: Person, around: Surroundings) -> None:
    identifier = await acme.publish(alice, around)
    path, large = f"/v1/journeys/{identifier}", {"order": "x" * 32 * 1024}
    contact = (await alice.client.get("/v1/contacts")).json()["items"][0]["id"]
    started = await alice.client.post(f"{path}/runs", json={"contact_id": contact, "variables": large})
    simulated = await alice.client.post(f"{path}/simulations", json={"contacts": [{}], "variables": large})
    assert started.status_code == simulated.status_code == 422
    assert simulated.json() == started.json()
    assert simulated.json()["errors"] == [{"path": "variables", "code": "too_large", "message": "At most 32 KB; this is 33 KB."}]
    fits = {"order": "x" * (32 * 1024 - len('{"order":""}'))}
    assert (await alice.client.post(f"{path}/simulations", json={"contacts": [{}], "variables": fits})).status_code == 200
    event = {"name": "opened", "properties": {"order": "x" * 32 * 1024}}
    for body, at in (({"script": [{"event": event}]}, "script[0].event"), ({"contacts": [{"events": [event]}]}, "contacts[0].events[0]")):
        answer = await alice.client.post(f"{path}/simulations", json={"contacts": [{}], **body})
        assert [(error["path"], error["code"]) for error in answer.json()["errors"]] == [(f"{at}.properties", "too_large")]
    case = {"name": "large", "start": START, "given": {"variables": large}, "expected": {"messages": []}}
    kept = await alice.client.post(f"{path}/cases", json=case)
    assert [(error["path"], error["code"]) for error in kept.json()["errors"]] == [("given.variables", "too_large")]
    [ran] = (await alice.client.post(f"{path}/cases/runs", json={"cases": [case]})).json()["results"]
    assert [(one["where"], one["code"]) for one in ran["differences"]] == [("given.variables", "too_large")]


async def test_a_draft_that_is_no_journey_yet_says_why(alice: Person, around: Surroundings) -> None:
    path = await journey(alice, {"a": {"kind": "wait", "duration": "P1D", "next": "gone"}}, "a")
    answer = await alice.client.post(f"{path}/simulations", json={"contacts": [{}]})
    assert answer.status_code == 422 and answer.json()["code"] == "unpublishable"
    assert [error["path"] for error in answer.json()["errors"]] == ["steps.a.next"]


async def test_a_draft_can_be_tried_before_an_account_is_connected(alice: Person, around: Surroundings, database: Database) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE connections SET is_default = false"))
    path = await journey(alice, around.welcome()["steps"], "welcome")
    found = await simulate(alice, path, contacts=[agreed()])
    assert [warning["code"] for warning in found["warnings"]] == ["no_connection"] and found["summary"]["messages"] == 1


async def test_a_draft_whose_end_has_passed_can_still_be_tried(alice: Person, around: Surroundings) -> None:
    draft = around.welcome() | {"ends_at": "2020-01-01T00:00:00Z"}
    made = (await alice.client.post("/v1/journeys", json={"name": "Past", "draft": draft})).json()
    found = await simulate(alice, f"/v1/journeys/{made['id']}", contacts=[agreed()])
    assert [warning["code"] for warning in found["warnings"]] == ["in_the_past"]


async def test_real_contacts_need_the_permission_to_see_contacts(alice: Person, around: Surroundings, app: Any) -> None:
    path = await journey(alice, around.welcome()["steps"], "welcome")
    key = (await alice.client.post("/v1/api-keys", json={"name": "designer", "scopes": ["journeys.read", "templates.read"]})).json()
    async with anonymous(app, Authorization=f"Bearer {key['secret']}") as designer:
        for body, status in (({"contacts": [{}]}, 200), ({"sample": {"size": 1}}, 403), ({"contact_ids": [str(around.contact_id)]}, 403)):
            assert (await designer.post(f"{path}/simulations", json=body)).status_code == status
    async with anonymous(app) as nobody:
        assert (await nobody.post(f"{path}/simulations", json={"contacts": [{}]})).status_code == 401


async def test_another_organizations_journey_and_contacts_are_not_there(alice: Person, charlie: Person, around: Surroundings) -> None:
    path = await journey(alice, around.welcome()["steps"], "welcome")
    assert (await charlie.client.post(f"{path}/simulations", json={"contacts": [{}]})).status_code == 404
    his = await journey(charlie, {"bye": {"kind": "exit"}}, "bye")
    answer = await charlie.client.post(f"{his}/simulations", json={"contact_ids": [str(around.contact_id)]})
    assert answer.status_code == 422


async def test_what_the_page_for_designers_shows_works_when_pasted(alice: Person) -> None:
    page = (ROOT / "docs/simulator.md").read_text()
    draft, simulation, case = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL))
    created = await alice.client.post("/v1/journeys", json={"name": "Pasted", "draft": draft})
    path = f"/v1/journeys/{created.json()['id']}"
    found = (await alice.client.post(f"{path}/simulations", json=simulation)).json()
    assert [trip["reason"] for trip in found["contacts"]] == ["thanked", "thanked"]
    assert [trip["wakes"][-1] for trip in found["contacts"]] == ["2026-03-02T14:00:00Z"] * 2  # nine in New York
    assert (await alice.client.post(f"{path}/cases", json=case)).status_code == 201
    assert (await alice.client.post(f"{path}/cases/runs")).json()["passed"] == 1
    assert (await alice.client.post(f"{path}/versions")).status_code == 201


# --- It touches nothing -------------------------------------------------------------------------------------------------


async def next_transaction(settings: Settings) -> int:
    """The number that the next transaction gets which writes anything, in whichever database of the server."""
    assert settings.owner_database_url is not None
    async with await psycopg.AsyncConnection.connect(settings.owner_database_url.get_secret_value(), autocommit=True) as owner:
        row = await (await owner.execute("SELECT CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)")).fetchone()
    assert row is not None
    return int(row[0])


EVERYTHING = {
    "hello": {"kind": "update_contact", "add_tags": ["seen"], "next": "join"},
    "join": {"kind": "subscribe", "topic_id": "{topic}", "evidence": "ticked", "next": "call"},
    "call": {"kind": "call_webhook", "url": "https://hooks.example.com/x", "body": {"who": "{{ contact.email }}"}, "next": "mail"},
    "mail": {"kind": "send", "template_id": "{template}", "topic_id": "{topic}", "next": "tell"},
    "tell": {"kind": "notify_team", "members": ["{member}"], "subject": "Hi", "text": "{{ contact.email }}", "next": "leave"},
    "leave": {"kind": "unsubscribe", "topic_id": "{topic}", "next": "look"},
    "look": {"kind": "review", "approved": "mail2"},
    "mail2": {"kind": "send", "template_id": "{template}", "topic_id": "{topic}"},
}


def filled(value: Any, **names: str) -> Any:
    if isinstance(value, dict):
        return {key: filled(inner, **names) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, **names) for inner in value]
    return names.get(value[1:-1], value) if isinstance(value, str) else value


async def test_every_kind_of_step_is_simulated_without_a_socket_or_a_row(
    alice: Person, around: Surroundings, settings: Settings, monkeypatch: pytest.MonkeyPatch, temporal: FakeTemporal
) -> None:
    steps = filled(EVERYTHING, topic=str(around.topic_id), template=str(around.template_id), member=str(alice.user_id))
    path = await journey(alice, steps, "hello")
    people = {"contacts": [{}], "contact_ids": [str(around.contact_id)], "sample": {"size": 10}}
    await simulate(alice, path, **people)  # so that the pool has its connections

    def connect(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"a simulation connects to {address}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "connect_ex", connect)
    temporal.away()  # whoever asks it gets an error
    for _ in range(3):  # PostgreSQL itself may write statistics meanwhile
        before = await next_transaction(settings)
        found = await simulate(alice, path, script=[{"after": "P1D", "review": "approved"}], **people)
        if (after := await next_transaction(settings)) == before:
            break
    assert after == before
    done = ["contact_updated", "subscribed", "called_webhook", "sent", "team_notified", "unsubscribed"]
    assert [kinds(trip) for trip in found["contacts"]] == [
        ["entered", *done, "review_asked", "review_approved", "not_sent", "completed"]
    ] * 2
    assert found["contacts"][0]["assumed"] == ["call"]
    await alice.client.patch("/v1/organization", json={"name": "Acme & Sons"})
    assert await next_transaction(settings) > before  # whatever does write is noticed


async def test_the_transaction_of_a_simulation_cannot_write(alice: Person, around: Surroundings, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.store import journeys as store

    path = await journey(alice, around.welcome()["steps"], "welcome")
    reading = store.get

    async def writing(session: Any, journey_id: Any, **options: Any) -> Any:
        await session.execute(text("UPDATE journeys SET name = name WHERE organization_id = :o"), {"o": alice.organization_id})
        return await reading(session, journey_id, **options)

    monkeypatch.setattr(store, "get", writing)
    answer = await alice.client.post(f"{path}/simulations", json={"contacts": [{}]})
    assert answer.status_code >= 500


async def test_a_thousand_contacts_over_ten_steps_and_ninety_days(alice: Person, around: Surroundings, database: Database) -> None:
    query = """INSERT INTO contacts (id, organization_id, email, first_name, timezone, attributes, tags, created_at, updated_at)
               SELECT gen_random_uuid(), :o, 'p' || n || '@example.com', 'P' || n,
                 CASE n % 3 WHEN 0 THEN 'Europe/Berlin' WHEN 1 THEN 'Asia/Tokyo' END, '{}', ARRAY['n' || n % 2], now(), now()
               FROM generate_series(1, 1000) AS n"""
    consents = """INSERT INTO consents (id, organization_id, contact_id, topic_id, channel, status, method, source, evidence, actor_kind,
                    occurred_at)
                  SELECT gen_random_uuid(), :o, id, :topic, 'email', 'granted', 'form', 'x', '{}', 'system', now() FROM contacts
                  WHERE organization_id = :o AND first_name IS NOT NULL"""
    async with database.organization(alice.organization_id) as session:
        await session.execute(text(query), {"o": alice.organization_id})
        await session.execute(text(consents), {"o": alice.organization_id, "topic": around.topic_id})
    segment = await acme.add_segment(database, alice, {"field": "first_name", "is": "exists"})
    steps: Document = {}
    for number in range(5):
        steps[f"mail{number}"] = send(around, f"pause{number}")
        steps[f"pause{number}"] = {"kind": "wait", "duration": "P18D", "next": f"mail{number + 1}" if number < 4 else None}
    await alice.client.patch("/v1/organization", json={"quiet_hours": {"email": {"start": "21:00", "end": "08:00"}}})
    path = await journey(alice, steps, "mail0")
    began = (
        time.process_time()
    )  # what it costs here, however busy the machine is with others; `leadstats bench simulation` says by the clock
    found = await simulate(alice, path, sample={"size": 1_000, "segment_id": str(segment)}, paths=3)
    seconds = time.process_time() - began
    summary = found["summary"]
    assert seconds < 5, f"{seconds:.1f} s"
    assert (summary["contacts"], summary["messages"], len(found["contacts"])) == (1_000, 5_000, 3)
    assert [step["arrived"] for step in summary["steps"]] == [1_000] * 10 and summary["ends"][0]["contacts"] == 1_000
    first, last = (datetime.fromisoformat(hour["hour"]) for hour in (summary["volume"][0], summary["volume"][-1]))
    assert timedelta(days=72) <= last - first < timedelta(days=74)
    assert sum(hour["messages"] for hour in summary["volume"]) == 5_000
