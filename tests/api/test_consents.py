from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models.domain.audit import SYSTEM
from models.store import consents
from models.store.consents import NewConsent
from models.store.session import Database
from tests.api.conftest import Cast, Person

LINE = {"channel": "email", "method": "form", "source": "https://example.com/subscribe"}


async def prepare(person: Person) -> tuple[str, str]:
    """A contact and a topic with the key `news`."""
    contact = (await person.client.post("/v1/contacts", json={"email": "ada@example.com"})).json()
    topic = (await person.client.post("/v1/topics", json={"key": "news", "name": "News"})).json()
    return contact["id"], topic["id"]


async def current(person: Person, contact_id: str) -> list[tuple[str, str]]:
    items = (await person.client.get(f"/v1/contacts/{contact_id}/consents")).json()["items"]
    return [(line["channel"], line["status"]) for line in items]


async def current_topics(person: Person, contact_id: str) -> list[tuple[str, str]]:
    items = (await person.client.get(f"/v1/contacts/{contact_id}/consents")).json()["items"]
    return [(line["topic_key"], line["status"]) for line in items]


async def test_the_latest_moment_decides_not_the_order_of_arrival(alice: Person) -> None:
    contact_id, topic_id = await prepare(alice)
    now = datetime.now(UTC)
    for status, age in (("withdrawn", 1), ("granted", 2)):
        line = LINE | {
            "contact_id": contact_id,
            "topic_id": topic_id,
            "status": status,
            "occurred_at": (now - timedelta(days=age)).isoformat(),
        }
        assert (await alice.client.post("/v1/consents", json=line)).status_code == 201
    assert await current(alice, contact_id) == [("email", "withdrawn")]
    again = await alice.client.post("/v1/consents", json=LINE | {"contact_id": contact_id, "topic": "news", "status": "granted"})
    assert await current(alice, contact_id) == [("email", "granted")]
    [line] = again.json()["items"]
    assert line["actor_id"] == str(alice.api_key_id)
    assert abs(datetime.fromisoformat(line["occurred_at"]) - now) < timedelta(minutes=1)


async def test_of_two_lines_of_one_moment_the_later_written_decides(alice: Person) -> None:
    contact_id, _ = await prepare(alice)
    same = LINE | {"contact_id": contact_id, "topic": "news", "occurred_at": "2026-01-01T00:00:00Z"}
    await alice.client.post("/v1/consents", json=[same | {"status": "granted"}, same | {"status": "withdrawn"}])
    assert await current(alice, contact_id) == [("email", "withdrawn")]


@pytest.mark.parametrize("statuses", [("granted", "withdrawn"), ("withdrawn", "granted")])
async def test_of_lines_of_one_request_that_say_no_time_a_withdrawal_is_in_force(alice: Person, statuses: tuple[str, ...]) -> None:
    contact_id, _ = await prepare(alice)
    lines = [LINE | {"contact_id": contact_id, "topic": "news", "status": status} for status in statuses]
    written = (await alice.client.post("/v1/consents", json=lines)).json()["items"]
    assert [line["status"] for line in written] == list(statuses)
    assert await current(alice, contact_id) == [("email", "withdrawn")]
    assert (
        await alice.client.post("/v1/consents", json=LINE | {"contact_id": contact_id, "topic": "news", "status": "granted"})
    ).is_success
    assert await current(alice, contact_id) == [("email", "granted")]


async def test_what_is_said_now_is_in_force_though_a_host_that_is_ahead_has_dated_a_line_later(alice: Person, database: Database) -> None:
    contact_id, topic_id = await prepare(alice)
    other = (await alice.client.post("/v1/topics", json={"key": "tips", "name": "Tips"})).json()["id"]
    ahead = datetime.now(UTC) + timedelta(seconds=50)
    async with database.organization(alice.organization_id) as session:
        for topic in (topic_id, other):
            line = NewConsent(UUID(contact_id), UUID(topic), "email", "granted", "form", "test", {}, SYSTEM, ahead)
            await consents.record(session, [line])
    leaving = LINE | {"contact_id": contact_id, "topic": "news", "status": "withdrawn"}
    stated = leaving | {"topic": "tips", "occurred_at": (datetime.now(UTC) - timedelta(seconds=10)).isoformat()}
    assert (await alice.client.post("/v1/consents", json=[leaving, stated])).status_code == 201
    assert sorted(await current_topics(alice, contact_id)) == [("news", "withdrawn"), ("tips", "granted")]  # a time that was said stands
    written = (await alice.client.get(f"/v1/consents?contact_id={contact_id}")).json()["items"][-2:]
    assert {line["topic_id"]: datetime.fromisoformat(line["occurred_at"]) for line in written} == {
        topic_id: ahead + timedelta(microseconds=2),
        other: datetime.fromisoformat(stated["occurred_at"]),
    }


async def test_a_list_is_written_whole_or_not_at_all(alice: Person) -> None:
    contact_id, topic_id = await prepare(alice)
    good = LINE | {"contact_id": contact_id, "topic_id": topic_id, "status": "granted"}
    future = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    bad = [good, good | {"topic_id": contact_id}, good | {"contact_id": topic_id}, good | {"occurred_at": future}]
    refused = await alice.client.post("/v1/consents", json=bad)
    assert refused.status_code == 422
    assert [error["path"] for error in refused.json()["errors"]] == ["[1].topic_id", "[2].contact_id", "[3].occurred_at"]
    assert await current(alice, contact_id) == []
    written = await alice.client.post("/v1/consents", json=[good, good | {"channel": "sms", "status": "withdrawn"}])
    assert len(written.json()["items"]) == 2
    assert await current(alice, contact_id) == [("email", "granted"), ("sms", "withdrawn")]


@pytest.mark.parametrize(
    "change",
    [{"topic_id": None}, {"topic": "news"}, {"status": "none"}, {"channel": "fax"}, {"occurred_at": "2026-01-01T00:00:00"}, {"method": ""}],
)
async def test_a_line_that_says_too_little_or_too_much_is_refused(alice: Person, change: dict[str, Any]) -> None:
    contact_id, topic_id = await prepare(alice)
    line = LINE | {"contact_id": contact_id, "topic_id": topic_id, "status": "granted"} | change
    assert (await alice.client.post("/v1/consents", json=line)).status_code == 422


async def test_a_thousand_lines_fit_and_one_more_does_not(alice: Person) -> None:
    contact_id, topic_id = await prepare(alice)
    line = LINE | {"contact_id": contact_id, "topic_id": topic_id, "status": "granted"}
    assert (await alice.client.post("/v1/consents", json=[line] * 1_000)).status_code == 201
    for lines in ([line] * 1_001, []):
        assert (await alice.client.post("/v1/consents", json=lines)).status_code == 422


async def test_an_archived_topic_takes_withdrawals_only(alice: Person) -> None:
    contact_id, topic_id = await prepare(alice)
    await alice.client.patch(f"/v1/topics/{topic_id}", json={"archived": True})
    line = LINE | {"contact_id": contact_id, "topic_id": topic_id}
    assert (await alice.client.post("/v1/consents", json=line | {"status": "granted"})).status_code == 422
    assert (await alice.client.post("/v1/consents", json=line | {"status": "withdrawn"})).status_code == 201


async def test_the_ledger_is_read_in_pages_in_the_order_it_was_written(alice: Person) -> None:
    contact_id, topic_id = await prepare(alice)
    line = LINE | {"contact_id": contact_id, "topic_id": topic_id, "evidence": {"form": "v2"}}
    for status in ("granted", "withdrawn", "granted"):
        await alice.client.post("/v1/consents", json=line | {"status": status})
    first = (await alice.client.get("/v1/consents", params={"contact_id": contact_id, "limit": 2})).json()
    rest = (await alice.client.get("/v1/consents", params={"contact_id": contact_id, "cursor": first["next_cursor"]})).json()
    assert [one["status"] for one in first["items"] + rest["items"]] == ["granted", "withdrawn", "granted"]
    assert first["items"][0]["evidence"] == {"form": "v2"}
    assert (await alice.client.get("/v1/consents")).status_code == 422


@pytest.mark.parametrize("statement", ["UPDATE consents SET status = 'granted'", "DELETE FROM consents", "TRUNCATE consents"])
async def test_the_database_refuses_to_change_the_ledger(alice: Person, database: Database, statement: str) -> None:
    contact_id, topic_id = await prepare(alice)
    await alice.client.post("/v1/consents", json=LINE | {"contact_id": contact_id, "topic_id": topic_id, "status": "withdrawn"})
    with pytest.raises(DBAPIError):
        async with database.organization(alice.organization_id) as session:
            await session.execute(text(statement))
    assert await current(alice, contact_id) == [("email", "withdrawn")]


async def test_nobody_writes_about_another_organizations_contact_or_topic(cast: Cast) -> None:
    contact_id, topic_id = await prepare(cast.alice)
    own_contact, own_topic = await prepare(cast.charlie)
    for pair in ({"contact_id": contact_id, "topic_id": own_topic}, {"contact_id": own_contact, "topic_id": topic_id}):
        assert (await cast.charlie.client.post("/v1/consents", json=LINE | pair | {"status": "granted"})).status_code == 422
    assert (await cast.charlie.client.get("/v1/consents", params={"contact_id": contact_id})).status_code == 404
    assert (await cast.charlie.client.get(f"/v1/contacts/{contact_id}/consents")).status_code == 404


async def test_each_line_has_its_audit_entry_without_personal_data(alice: Person) -> None:
    contact_id, topic_id = await prepare(alice)
    line = LINE | {"contact_id": contact_id, "topic_id": topic_id}
    await alice.client.post("/v1/consents", json=[line | {"status": "granted"}, line | {"status": "withdrawn"}])
    entries = (await alice.client.get("/v1/audit-entries", params={"subject_id": contact_id})).json()["items"]
    assert [entry["action"] for entry in entries] == ["contact.created", "consent.granted", "consent.withdrawn"]
    assert "ada@" not in str(entries)


async def test_a_fault_is_named_as_it_was_sent_alone_or_in_a_list(alice: Person) -> None:
    stranger = "019f0000-0000-7000-8000-000000000001"
    line = {"contact_id": stranger, "topic": "nope", "channel": "email", "status": "granted", "method": "form", "source": "x"}
    for wrong, names in ((line | {"method": ""}, ["method"]), (line, ["contact_id", "topic"])):
        for body, prefix in ((wrong, ""), ([wrong], "[0].")):
            answer = await alice.client.post("/v1/consents", json=body)
            assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (422, [prefix + name for name in names])


async def test_a_moment_before_the_first_year_is_on_record_as_that(alice: Person) -> None:
    """The database would store the year before the first, and no check could read the contact's consents again."""
    contact_id, _ = await prepare(alice)
    line = LINE | {"contact_id": contact_id, "topic": "news", "status": "granted", "occurred_at": "0001-01-01T00:00:00+14:00"}
    assert (answer := await alice.client.post("/v1/consents", json=line)).status_code == 201, answer.text
    [found] = (await alice.client.get(f"/v1/contacts/{contact_id}/consents")).json()["items"]
    assert found["occurred_at"] == "0001-01-01T00:00:00Z"
