from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from models.store import contacts, segments
from models.store.session import Database, OrganizationSession
from tests.api.conftest import Cast, Person
from tests.api.organization_schema import set_attribute_schema

US = {"field": "country", "is": "equals", "value": "US"}


async def populate(person: Person) -> None:
    for number, country in enumerate(["US", "US", "DE"]):
        await person.client.post("/v1/contacts", json={"email": f"p{number}@example.com", "country": country})


async def test_a_segment_is_created_read_changed_and_deleted(alice: Person) -> None:
    made = await alice.client.post("/v1/segments", json={"name": "America", "rule": US})
    assert made.status_code == 201
    path = f"/v1/segments/{made.json()['id']}"
    assert (await alice.client.get(path)).json() == made.json()
    changed = (await alice.client.patch(path, json={"rule": {"all": []}})).json()
    assert (changed["name"], changed["rule"]) == ("America", {"all": []})
    assert (await alice.client.delete(path)).status_code == 204
    assert (await alice.client.get(path)).status_code == 404


async def test_a_name_is_taken_once(alice: Person) -> None:
    await alice.client.post("/v1/segments", json={"name": "A", "rule": US})
    other = (await alice.client.post("/v1/segments", json={"name": "B", "rule": US})).json()
    assert (await alice.client.post("/v1/segments", json={"name": "A", "rule": US})).status_code == 409
    assert (await alice.client.patch(f"/v1/segments/{other['id']}", json={"name": "A"})).status_code == 409


async def test_a_preview_counts_and_shows_the_oldest(alice: Person) -> None:
    await populate(alice)
    made = (await alice.client.post("/v1/segments", json={"name": "America", "rule": US})).json()
    saved = (await alice.client.get(f"/v1/segments/{made['id']}/preview", params={"sample": 1})).json()
    assert (saved["count"], [contact["email"] for contact in saved["sample"]]) == (2, ["p0@example.com"])
    unsaved = (await alice.client.post("/v1/segment-previews", json={"rule": {"not": US}})).json()
    assert (unsaved["count"], [contact["email"] for contact in unsaved["sample"]]) == (1, ["p2@example.com"])


async def test_a_viewer_cannot_guess_fields_by_counting(cast: Cast) -> None:
    await populate(cast.alice)
    made = (await cast.alice.client.post("/v1/segments", json={"name": "America", "rule": US})).json()
    assert (await cast.bob.client.get(f"/v1/segments/{made['id']}")).status_code == 200
    for answer in (
        await cast.bob.client.get(f"/v1/segments/{made['id']}/preview"),
        await cast.bob.client.post("/v1/segment-previews", json={"rule": US, "sample": 0}),
    ):
        assert answer.status_code == 403
        assert "contacts.read" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"field": "attributes.nope", "is": "exists"}, "rule.field"),
        ({"any": [{"field": "attributes.seats", "is": "greater", "value": "x"}]}, "rule.any[0].value"),
        ({"field": "run.x", "is": "exists"}, "rule.field"),
        ({"not": {"consent": {"topic": "nope", "channel": "email", "status": "granted"}}}, "rule.not.consent.topic"),
        ({"consent": {"topic_id": "019f0000-0000-7000-8000-000000000001", "channel": "email", "status": "none"}}, "rule.consent.topic_id"),
        ({}, "rule"),
        ({"any": []}, "rule.any"),
    ],
)
async def test_a_rule_that_does_not_fit_the_organization_is_refused(
    alice: Person, database: Database, rule: dict[str, Any], path: str
) -> None:
    await set_attribute_schema(database, alice.organization_id, {"seats": "integer"})
    for answer in (
        await alice.client.post("/v1/segments", json={"name": "x", "rule": rule}),
        await alice.client.post("/v1/segment-previews", json={"rule": rule}),
    ):
        assert answer.status_code == 422
        assert [error["path"] for error in answer.json()["errors"]] == [path]
        assert "Tuple" not in answer.text and "validation" not in answer.text


async def test_consent_selects_by_the_state_of_the_ledger(alice: Person) -> None:
    await populate(alice)
    await alice.client.post("/v1/topics", json={"key": "news", "name": "News"})
    [first, second, _] = (await alice.client.get("/v1/contacts")).json()["items"]
    line = {"topic": "news", "channel": "email", "method": "form", "source": "x"}
    lines = [(first["id"], "granted"), (second["id"], "granted"), (second["id"], "withdrawn")]
    await alice.client.post("/v1/consents", json=[line | {"contact_id": contact, "status": status} for contact, status in lines])
    for status in ("granted", "withdrawn", "none"):
        rule = {"consent": {"topic": "news", "channel": "email", "status": status}}
        assert (await alice.client.post("/v1/segment-previews", json={"rule": rule})).json()["count"] == 1


async def test_a_preview_that_takes_too_long_is_unavailable(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    async def count_slowly(session: OrganizationSession, _: object) -> int:
        return int((await session.execute(text("SELECT 1 FROM pg_sleep(5)"))).scalar_one())

    monkeypatch.setattr(segments, "LOOK", timedelta(seconds=1))
    monkeypatch.setattr(contacts, "count", count_slowly)
    answer = await alice.client.post("/v1/segment-previews", json={"rule": US})
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("This took longer than 1 seconds and was given up. Ask about fewer")


async def test_a_stranger_sees_404(cast: Cast) -> None:
    made = (await cast.alice.client.post("/v1/segments", json={"name": "A", "rule": US})).json()
    path = f"/v1/segments/{made['id']}"
    answers = [
        await cast.charlie.client.get(path),
        await cast.charlie.client.get(f"{path}/preview"),
        await cast.charlie.client.delete(path),
    ]
    answers += [await cast.charlie.client.patch(path, json={"name": "x"})]
    assert {answer.status_code for answer in answers} == {404}


async def test_changes_are_audited(alice: Person) -> None:
    made = (await alice.client.post("/v1/segments", json={"name": "A", "rule": US})).json()
    await alice.client.patch(f"/v1/segments/{made['id']}", json={"name": "A"})
    await alice.client.patch(f"/v1/segments/{made['id']}", json={"name": "B"})
    await alice.client.delete(f"/v1/segments/{made['id']}")
    entries = (await alice.client.get("/v1/audit-entries", params={"subject_kind": "segment"})).json()["items"]
    assert [entry["action"] for entry in entries] == ["segment.created", "segment.changed", "segment.deleted"]


async def test_a_segment_that_journeys_name_is_not_deleted_before_they_name_it_no_more(alice: Person) -> None:
    segment = (await alice.client.post("/v1/segments", json={"name": "America", "rule": US})).json()["id"]
    end: dict[str, Any] = {"start": "end", "steps": {"end": {"kind": "exit"}}}
    led = {**end, "entry": {"triggers": [{"kind": "segment_entered", "segment_id": segment}]}}
    asked = {
        "start": "ask",
        "steps": {"ask": {"kind": "branch", "conditions": [{"when": {"any": [{"segment": segment}]}, "next": "end"}]}, **end["steps"]},
    }
    ids = {}
    for name, draft in (("Led", led), ("Asked", asked)):
        made = await alice.client.post("/v1/journeys", json={"name": name, "draft": draft})
        ids[name] = made.json()["id"]
        assert (await alice.client.post(f"/v1/journeys/{ids[name]}/versions")).status_code == 201
    path = f"/v1/segments/{segment}"
    refused = await alice.client.delete(path)
    assert refused.status_code == 409 and "'Asked' (its draft), 'Led' (its draft and version 1)" in refused.json()["detail"]
    for id in ids.values():  # what was published keeps the rule, but contacts still enter by the segment
        await alice.client.patch(f"/v1/journeys/{id}/draft", json={"draft": end}, headers={"If-Match": '"1"'})
    refused = await alice.client.delete(path)
    assert refused.status_code == 409 and "segment: 'Led' (version 1). " in refused.json()["detail"]
    await alice.client.put(f"/v1/journeys/{ids['Led']}/archive")
    assert (await alice.client.delete(path)).status_code == 204
