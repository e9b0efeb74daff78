import asyncio
import csv
import io
from typing import Any

import pytest

from models.store import contact_export, contacts
from models.store.session import Database
from tests.api.conftest import Cast, Person
from tests.api.organization_schema import set_attribute_schema


async def test_a_new_email_creates_a_contact_and_a_known_one_updates_it(alice: Person) -> None:
    first = await alice.client.post("/v1/contacts", json={"email": "Ada@Example.COM", "first_name": "Ada", "tags": ["VIP ", "vip"]})
    second = await alice.client.post("/v1/contacts", json={"email": "ada@example.com", "last_name": "Lovelace", "external_id": "7"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["email"] == "Ada@example.com"
    assert first.json()["tags"] == ["vip"]
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["first_name"] == "Ada"
    assert second.json()["last_name"] == "Lovelace"


async def test_values_are_kept_in_their_one_form(alice: Person) -> None:
    given = {"email": "a@example.com", "country": "us", "phone": "(212) 555-0123", "locale": "pt_br", "timezone": "america/new_york"}
    answer = (await alice.client.post("/v1/contacts", json=given)).json()
    assert [answer[name] for name in ("country", "phone", "locale", "timezone")] == ["US", "+12125550123", "pt-BR", "America/New_York"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("email", "not-an-address", "not_an_email"),
        ("phone", "2125550123", "phone_without_country"),
        ("phone", "+1 000 000 0000", "not_a_phone"),
        ("timezone", "Mars/Olympus", "unknown_timezone"),
        ("country", "QQ", "unknown_country"),
        ("locale", "english please", "not_a_locale"),
    ],
)
async def test_a_malformed_value_is_refused_by_its_field(alice: Person, field: str, value: str, code: str) -> None:
    answer = await alice.client.post("/v1/contacts", json={"external_id": "1", field: value})
    assert answer.status_code == 422
    assert [(error["path"], error["code"]) for error in answer.json()["errors"]] == [(field, code)]
    assert value not in answer.text


async def test_attributes_are_typed_by_the_organization(alice: Person, database: Database) -> None:
    schema = {
        "plan": "string",
        "seats": "integer",
        "since": "date",
        "seen": "datetime",
        "langs": "strings",
        "ok": "boolean",
        "score": "number",
    }
    await set_attribute_schema(database, alice.organization_id, schema)
    good = {
        "plan": "pro",
        "seats": 3,
        "since": "2026-01-31",
        "seen": "2026-05-01T09:00:00+02:00",
        "langs": ["en"],
        "ok": True,
        "score": 1.5,
    }
    answer = await alice.client.post("/v1/contacts", json={"email": "a@example.com", "attributes": good})
    assert answer.json()["attributes"] == good | {"seen": "2026-05-01T07:00:00Z"}
    bad = {"plan": 1, "seats": True, "since": "31.01.2026", "seen": "2026-05-01T09:00:00", "langs": "en", "ok": "yes", "score": "1", "x": 1}
    refused = await alice.client.post("/v1/contacts", json={"email": "a@example.com", "attributes": bad})
    assert refused.status_code == 422
    assert {error["path"] for error in refused.json()["errors"]} == {f"attributes.{key}" for key in bad}


async def test_attributes_merge_and_null_removes_one(alice: Person, database: Database) -> None:
    await set_attribute_schema(database, alice.organization_id, {"plan": "string", "seats": "integer"})
    made = (await alice.client.post("/v1/contacts", json={"email": "a@example.com", "attributes": {"plan": "pro", "seats": 3}})).json()
    changed = await alice.client.patch(f"/v1/contacts/{made['id']}", json={"attributes": {"plan": None}, "first_name": None})
    assert changed.json()["attributes"] == {"seats": 3}


async def test_an_external_id_and_an_email_of_two_contacts_conflict(alice: Person) -> None:
    await alice.client.post("/v1/contacts", json={"external_id": "1", "email": "one@example.com"})
    await alice.client.post("/v1/contacts", json={"external_id": "2", "email": "two@example.com"})
    both = await alice.client.post("/v1/contacts", json={"external_id": "1", "email": "two@example.com"})
    other = await alice.client.post("/v1/contacts", json={"external_id": "3", "email": "two@example.com"})
    for answer in (both, other):
        assert answer.status_code == 409
        assert "external_id" in answer.json()["detail"]
        assert "email" in answer.json()["detail"]


async def test_a_change_cannot_take_another_contacts_email_or_the_last_identity(alice: Person) -> None:
    await alice.client.post("/v1/contacts", json={"email": "one@example.com"})
    two = (await alice.client.post("/v1/contacts", json={"email": "two@example.com"})).json()
    taken = await alice.client.patch(f"/v1/contacts/{two['id']}", json={"email": "ONE@example.com"})
    lost = await alice.client.patch(f"/v1/contacts/{two['id']}", json={"email": None})
    assert (taken.status_code, lost.status_code) == (409, 422)
    assert "email" in taken.json()["detail"]


async def test_concurrent_upserts_of_one_person_make_one_contact(alice: Person) -> None:
    requests = [
        alice.client.post(
            "/v1/contacts", json={"email": "same@example.com", "external_id": "same" if number % 2 else None, "region": str(number)}
        )
        for number in range(12)
    ]
    answers = await asyncio.gather(*requests)
    assert sorted({answer.status_code for answer in answers}) == [200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.status_code for answer in answers].count(201) == 1


async def test_a_contact_needs_an_identity(alice: Person) -> None:
    answer = await alice.client.post("/v1/contacts", json={"first_name": "Nobody", "email": "  "})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "no_identity"


async def test_the_list_is_filtered_and_paged(alice: Person) -> None:
    for number in range(5):
        await alice.client.post("/v1/contacts", json={"email": f"c{number}@example.com", "tags": ["odd"] if number % 2 else []})
    seen, cursor = [], None
    while True:
        answer = (await alice.client.get("/v1/contacts", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [contact["email"] for contact in answer["items"]]
        if (cursor := answer["next_cursor"]) is None:
            break
    assert seen == [f"c{number}@example.com" for number in range(5)]
    odd = (await alice.client.get("/v1/contacts", params={"tag": "ODD"})).json()["items"]
    assert [contact["email"] for contact in odd] == ["c1@example.com", "c3@example.com"]
    one = (await alice.client.get("/v1/contacts", params={"email": "C2@EXAMPLE.com"})).json()["items"]
    assert [contact["email"] for contact in one] == ["c2@example.com"]


async def test_the_list_can_be_those_of_a_segment(alice: Person) -> None:
    for country in ("US", "DE"):
        await alice.client.post("/v1/contacts", json={"email": f"{country}@example.com", "country": country})
    rule = {"field": "country", "is": "equals", "value": "de"}
    segment = (await alice.client.post("/v1/segments", json={"name": "Germany", "rule": rule})).json()
    found = (await alice.client.get("/v1/contacts", params={"segment_id": segment["id"]})).json()["items"]
    assert [contact["email"] for contact in found] == ["DE@example.com"]


async def test_a_stranger_sees_404_and_a_viewer_403(cast: Cast) -> None:
    made = (await cast.alice.client.post("/v1/contacts", json={"email": "a@example.com"})).json()
    assert (await cast.charlie.client.get(f"/v1/contacts/{made['id']}")).status_code == 404
    assert (await cast.charlie.client.patch(f"/v1/contacts/{made['id']}", json={"region": "x"})).status_code == 404
    assert (await cast.bob.client.get(f"/v1/contacts/{made['id']}")).status_code == 403


async def test_an_unchanged_upsert_writes_no_audit_entry(alice: Person, database: Database) -> None:
    for _ in range(2):
        await alice.client.post("/v1/contacts", json={"email": "a@example.com", "first_name": "Ada"})
    answer = (await alice.client.get("/v1/audit-entries", params={"subject_kind": "contact"})).json()["items"]
    assert [entry["action"] for entry in answer] == ["contact.created"]
    assert "Ada" not in str(answer)


async def test_a_slow_reader_of_the_export_holds_no_transaction_open(alice: Person, database: Database) -> None:
    emails = [f"p{number}@example.com" for number in range(7)]
    for email in emails:
        await alice.client.post("/v1/contacts", json={"email": email})
    pool: Any = database.engine.pool
    before, text = pool.checkedout(), b""
    async for piece in contact_export.export(database, alice.organization_id, batch=3):
        text += piece
        assert pool.checkedout() == before
    assert [row["email"] for row in csv.DictReader(io.StringIO(text.decode("utf-8-sig")))] == emails


@pytest.mark.parametrize("count", [0, 3])
async def test_an_export_whose_last_batch_is_full_ends(alice: Person, database: Database, count: int) -> None:
    for number in range(count):
        await alice.client.post("/v1/contacts", json={"email": f"p{number}@example.com"})
    pieces = [piece async for piece in contact_export.export(database, alice.organization_id, batch=3)]
    assert len(b"".join(pieces).decode("utf-8-sig").splitlines()) == count + 1


async def test_the_export_can_be_imported_again_and_runs_no_formula(alice: Person, charlie: Person, database: Database) -> None:
    for person in (alice, charlie):
        await set_attribute_schema(database, person.organization_id, {"note": "string", "langs": "strings", "seats": "integer"})
    given = {
        "external_id": "=1+1",
        "email": "a@example.com",
        "first_name": '@SUM("A1")\n, x',
        "last_name": "'-quoted",
        "phone": "+12125550123",
        "tags": ["b", "a"],
        "attributes": {"note": "+1", "langs": ["a;b", "c"], "seats": -3},
    }
    made = (await alice.client.post("/v1/contacts", json=given)).json()
    exported = (await alice.client.get("/v1/contacts/export")).content
    [row] = csv.DictReader(io.StringIO(exported.decode("utf-8-sig")))
    dangerous = [cell for name, cell in row.items() if name != "phone" and cell[:1] in "=+-@\t\r" and cell]
    assert dangerous == []
    imported = await charlie.client.post("/v1/contact-imports", files={"file": ("contacts.csv", exported)})
    assert imported.json()["created"] == 1, imported.json()
    [copy] = (await charlie.client.get("/v1/contacts")).json()["items"]
    differing = {name for name in copy if copy[name] != made[name]}
    assert differing == {"id", "created_at", "updated_at"}


async def test_an_upsert_that_loses_every_race_is_a_conflict(alice: Person, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def blind(*_: object) -> None:
        return None

    await alice.client.post("/v1/contacts", json={"email": "a@example.com"})
    monkeypatch.setattr(contacts, "_identify", blind)
    assert (await alice.client.post("/v1/contacts", json={"email": "a@example.com"})).status_code == 409
