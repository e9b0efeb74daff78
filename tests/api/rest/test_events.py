import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from models.store import events
from models.store.events import NewEvent
from models.store.session import OrganizationSession
from tests.api.conftest import Cast, Person
from tests.api.conftest import temporal as temporal  # connects to nothing

ORDER = {"name": "ordered", "email": "ada@example.com", "properties": {"total": 12}}


async def problems(person: Person, body: Any, **query: Any) -> list[tuple[str, str]]:
    answer = await person.client.post("/v1/events", json=body, params=query)
    assert answer.status_code == 422, answer.text
    return [(error["path"], error["code"]) for error in answer.json()["errors"]]


async def test_an_event_is_on_record_when_it_is_accepted_and_makes_its_contact(alice: Person) -> None:
    answer = await alice.client.post("/v1/events", json=ORDER)
    assert answer.status_code == 202 and answer.json()["items"][0]["new"] is True
    [event] = (await alice.client.get("/v1/events")).json()["items"]
    assert (event["name"], event["properties"], event["routed_at"]) == ("ordered", {"total": 12}, None)
    [contact] = (await alice.client.get("/v1/contacts")).json()["items"]
    assert (contact["id"], contact["email"]) == (event["contact_id"], "ada@example.com")
    assert (await alice.client.get(f"/v1/contacts/{contact['id']}/consents")).json()["items"] == []


async def test_the_same_id_is_accepted_once_also_within_a_batch(alice: Person) -> None:
    first = (await alice.client.post("/v1/events", json=ORDER | {"id": "e1"})).json()["items"][0]
    batch = [ORDER | {"id": "e1"}, ORDER | {"id": "e2"}, ORDER | {"id": "e2", "name": "other"}]
    items = (await alice.client.post("/v1/events", json=batch)).json()["items"]
    assert [item["new"] for item in items] == [False, True, False]
    assert items[0]["id"] == first["id"] and items[2]["id"] == items[1]["id"]
    assert [event["name"] for event in (await alice.client.get("/v1/events")).json()["items"]] == ["ordered", "ordered"]


async def test_a_repeated_id_is_answered_as_the_first_was_and_makes_no_contact(alice: Person) -> None:
    first = (await alice.client.post("/v1/events", json=ORDER | {"id": "e1"})).json()["items"][0]
    ghost = {"id": "e1", "name": "ordered", "external_id": "ghost"}
    stranger = {"id": "e1", "name": "ordered", "contact_id": "019f0000-0000-7000-8000-000000000001"}
    for body in (ghost, [ghost, ORDER | {"id": "e2"}, ghost | {"id": "e2"}], stranger):
        answer = await alice.client.post("/v1/events", json=body)
        assert answer.status_code == 202, answer.text
        items = answer.json()["items"]
        assert items[0] == {**first, "new": False}
    batch = [{"id": "e3", "name": "a", "external_id": "new one"}, ORDER | {"id": "e3"}, {"id": "e3", "name": "c", "external_id": "ghost"}]
    items = (await alice.client.post("/v1/events", json=batch)).json()["items"]
    assert [item["new"] for item in items] == [True, False, False] and len({(item["id"], item["contact_id"]) for item in items}) == 1
    assert items[0]["contact_id"] != first["contact_id"]
    contacts = (await alice.client.get("/v1/contacts")).json()["items"]
    assert sorted(filter(None, (contact["external_id"] for contact in contacts))) == ["new one"] and len(contacts) == 2


async def test_what_could_not_be_accepted_does_not_stand_in_the_way_of_the_same_id(alice: Person) -> None:
    """Requests that come at the same time share a transaction."""
    stranger = {"id": "e1", "name": "x", "contact_id": "019f0000-0000-7000-8000-000000000001"}
    said = [ORDER, stranger, ORDER | {"id": "e1"}, ORDER | {"id": "e1"}]
    answers = await asyncio.gather(*(alice.client.post("/v1/events", json=event) for event in said))
    assert [answer.status_code for answer in answers[2:]] == [202, 202]
    assert sum(answer.json()["items"][0]["new"] for answer in answers[2:]) == 1


async def test_a_batch_keeps_its_order_and_makes_each_contact_once(alice: Person) -> None:
    batch = [{"name": f"event {number}", "external_id": f"crm-{number % 3}"} for number in range(50)]
    assert (await alice.client.post("/v1/events", json=batch)).status_code == 202
    events = (await alice.client.get("/v1/events", params={"limit": 100})).json()["items"]
    assert {event["name"] for event in events} == {event["name"] for event in batch}
    assert len((await alice.client.get("/v1/contacts")).json()["items"]) == 3


async def test_a_moment_is_written_out_and_a_name_is_more_than_spaces(alice: Person) -> None:
    assert await problems(alice, ORDER | {"occurred_at": 12345}) == [("occurred_at", "malformed_moment")]
    assert await problems(alice, ORDER | {"occurred_at": "12345"}) == [("occurred_at", "malformed_moment")]
    for name in (" ", "\u00a0 "):
        [(path, _)] = await problems(alice, ORDER | {"name": name})
        assert path == "name"
    assert (
        await alice.client.post("/v1/events", json=ORDER | {"name": " é ", "occurred_at": "2026-01-31T23:00:00+01:00"})
    ).status_code == 202


async def test_a_mistake_refuses_the_whole_batch_and_names_the_field(alice: Person) -> None:
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    batch = [ORDER, {"name": "x"}, ORDER | {"external_id": "a"}, ORDER | {"email": "nonsense"}, ORDER | {"occurred_at": later}]
    assert await problems(alice, batch) == [
        ("[1].contact_id", "one_of"),
        ("[2].contact_id", "one_of"),
        ("[3].email", "not_an_email"),
        ("[4].occurred_at", "in_the_future"),
    ]
    assert (await alice.client.get("/v1/events")).json()["items"] == []


async def test_unknown_contacts_are_refused_where_that_is_asked(alice: Person) -> None:
    assert await problems(alice, ORDER, create_contacts=False) == [("email", "unknown_contact")]
    stranger = {"name": "x", "contact_id": "019f0000-0000-7000-8000-000000000001"}
    assert await problems(alice, stranger) == [("contact_id", "unknown_contact")]
    assert (await alice.client.get("/v1/contacts")).json()["items"] == []
    assert await problems(alice, [ORDER, stranger]) == [("[1].contact_id", "unknown_contact")]
    assert (await alice.client.get("/v1/events")).json()["items"] == []


async def test_events_that_come_at_the_same_time_are_each_answered_for_themselves(alice: Person) -> None:
    said = [{"id": f"e{number % 30}", "name": "x", "email": f"p{number % 7}@example.com"} for number in range(60)]
    said[13] = {"name": "x", "contact_id": "019f0000-0000-7000-8000-000000000001"}
    answers = await asyncio.gather(*(alice.client.post("/v1/events", json=event) for event in said))
    assert [answer.status_code for answer in answers] == [422 if number == 13 else 202 for number in range(60)]
    new = [answer.json()["items"][0]["new"] for answer in answers if answer.status_code == 202]
    assert sum(new) == 30 and len((await alice.client.get("/v1/events", params={"limit": 100})).json()["items"]) == 30
    contacts = (await alice.client.get("/v1/contacts")).json()["items"]
    assert {contact["email"] for contact in contacts} == {f"p{number}@example.com" for number in range(7)}


async def test_an_event_that_cannot_be_stored_refuses_no_other_of_the_same_time(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    really = events.accept

    async def accept(session: OrganizationSession, new: Sequence[NewEvent], **asked: Any) -> Any:
        if any(event.name == "bad" for event in new):
            await session.execute(text("SELECT CAST('1e400' AS float8)"))
        return await really(session, new, **asked)

    monkeypatch.setattr(events, "accept", accept)
    said = [{"name": "bad" if number == 7 else "good", "email": "p@example.com"} for number in range(12)]
    answers = await asyncio.gather(*(alice.client.post("/v1/events", json=event) for event in said))
    assert [answer.status_code for answer in answers] == [422 if number == 7 else 202 for number in range(12)]
    assert len((await alice.client.get("/v1/events")).json()["items"]) == 11


async def test_an_id_that_is_sent_twice_at_once_makes_one_contact(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is accepted while the first, which has made its contact already, is not committed yet."""
    really, second = events.accept, asyncio.Event()
    waits = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")

    async def accept(session: OrganizationSession, new: Sequence[NewEvent], **asked: Any) -> Any:
        accepted = await really(session, new, **asked)
        if not second.is_set():
            second.set()
            async with asyncio.timeout(60):
                while not await session.scalar(waits):
                    await asyncio.sleep(0.01)
        return accepted

    monkeypatch.setattr(events, "accept", accept)
    bodies = [[{"id": "e1", "name": "ordered", "external_id": who}, ORDER | {"id": who}] for who in ("one", "other")]
    first = asyncio.ensure_future(alice.client.post("/v1/events", json=bodies[0]))
    await second.wait()
    answers = [await alice.client.post("/v1/events", json=bodies[1]), await first]
    items = [answer.json()["items"][0] for answer in answers]
    assert [item["new"] for item in items] == [False, True] and len({(item["id"], item["contact_id"]) for item in items}) == 1
    contacts = (await alice.client.get("/v1/contacts")).json()["items"]
    assert sorted(contact["external_id"] or "ada" for contact in contacts) == ["ada", "one"]


async def test_properties_are_bounded(alice: Person) -> None:
    assert await problems(alice, ORDER | {"properties": {"text": "x" * 33_000}}) == [("properties", "too_large")]
    assert (await problems(alice, [ORDER] * 1_001))[0][1] == "too_long"


async def test_a_thousand_large_events_fit_into_one_request(alice: Person) -> None:
    batch = [ORDER | {"id": f"e{number}", "properties": {"text": "x" * 32_000}} for number in range(1_000)]
    answer = await alice.client.post("/v1/events", content=json.dumps(batch), headers={"Content-Type": "application/json"})
    assert answer.status_code == 202 and sum(item["new"] for item in answer.json()["items"]) == 1_000


async def test_a_strangers_large_body_is_not_read(cast: Cast) -> None:
    answer = await cast.alice.client.post("/v1/events", content=b"x" * 3_000_000, headers={"Authorization": "Bearer ls_no"})
    assert answer.status_code == 401


@pytest.mark.parametrize("name", ["", "a" * 201, "line\nbreak"])
async def test_a_name_is_one_line(alice: Person, name: str) -> None:
    assert [path for path, _ in await problems(alice, ORDER | {"name": name})] == ["name"]


async def test_a_time_before_the_first_year_is_stored_as_that(alice: Person) -> None:
    """The database would store the year before the first, which nobody could read again."""
    answer = await alice.client.post("/v1/events", json=ORDER | {"occurred_at": "0001-01-01T00:00:00+14:00"})
    assert answer.status_code == 202, answer.text
    [event] = (await alice.client.get("/v1/events")).json()["items"]
    assert event["occurred_at"] == "0001-01-01T00:00:00Z"
