"""Restoring, duplicating, exporting and importing journeys. Alice owns Acme, Charlie owns Crow."""

import json
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text

from models.store.session import Database
from models.tables.base import new_id
from tests.api.conftest import Person, anonymous
from tests.api.conftest import temporal as temporal  # connects to nothing
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions

Document = dict[str, Any]


async def make(person: Person, path: str, body: Any) -> Document:
    made = await person.client.post(path, json=body)
    assert made.status_code == 201, made.text
    found: Document = made.json()
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def rich(alice: Person, around: Surroundings) -> Document:
    """A journey that names one of everything."""
    tips = await make(alice, "/v1/topics", {"key": "tips", "name": "Tips", "description": "Once a month"})
    rule = {"any": [{"tag": "customer"}, {"consent": {"topic_id": tips["id"], "channel": "email", "status": "granted"}}]}
    segment = await make(alice, "/v1/segments", {"name": "Friends", "rule": rule})
    said = {"subject": "Hi", "html": "<p>{{ unsubscribe_url }}</p>", "text": "{{ unsubscribe_url }}"}
    template = await make(alice, "/v1/templates", {"name": "Hello", "channel": "email", **said})
    await make(alice, f"/v1/templates/{template['id']}/versions", {**said, "subject": "Hi again"})
    pinned = {"template_version_id": template["version"]["id"], "template_id": template["id"], "topic_id": tips["id"]}
    draft = {
        "start": "hello",
        "steps": {
            "hello": {"kind": "send", **pinned, "next": "which"},
            "which": {"kind": "branch", "conditions": [{"when": {"segment": segment["id"]}, "next": "again"}]},
            "again": {"kind": "send", "template_id": template["id"], "topic_id": tips["id"]},
        },
    }
    return await make(alice, "/v1/journeys", {"name": "Rich", "draft": draft})


async def export(person: Person, journey_id: str) -> Document:
    answer = await person.client.get(f"/v1/journeys/{journey_id}/export")
    assert answer.status_code == 200, answer.text
    found: Document = answer.json()
    assert answer.text == json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return found


async def bring(person: Person, document: Document, status: int, headers: dict[str, str] | None = None, **fields: Any) -> Document:
    answer = await person.client.post("/v1/journey-imports", json={"document": document, **fields}, headers=headers or {})
    assert answer.status_code == status, answer.text
    found: Document = answer.json()
    return found


async def test_a_version_is_restored_as_it_was_published(alice: Person, around: Surroundings, database: Database) -> None:
    journey = await acme.publish(alice, around)
    path = f"/v1/journeys/{journey}"
    await alice.client.patch(f"{path}/draft", json={"draft": {"idea": 1}}, headers={"If-Match": '"1"'})
    stale = await alice.client.put(f"{path}/draft/restoration", json={"version": 1}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    restored = await alice.client.put(f"{path}/draft/restoration", json={"version": 1}, headers={"If-Match": '"2"'})
    assert (restored.status_code, restored.headers["ETag"]) == (200, '"3"')
    assert restored.json()["draft"] == around.welcome()
    again = await alice.client.post(f"{path}/versions")
    assert (again.status_code, again.json()["number"]) == (200, 1)  # it says the same
    assert (await actions(alice, database, journey))[-1] == "journey.draft_restored"


async def test_a_restored_version_follows_its_segment_and_templates_as_its_draft_did(
    alice: Person, around: Surroundings, database: Database
) -> None:
    segment = str(await acme.add_segment(database, alice, {"tag": "old"}))
    split = {"kind": "split", "arms": [{"weight": 1}, {"weight": 1}]}
    branch = {"kind": "branch", "conditions": [{"when": {"segment": segment}, "next": "part"}]}
    draft = {**around.welcome(next="which"), "entry": {"triggers": [{"kind": "segment_entered", "segment_id": segment}]}}
    draft["steps"] = {"welcome": draft["steps"]["welcome"], "which": branch, "part": split}
    journey = await make(alice, "/v1/journeys", {"name": "Followed", "draft": draft})
    path = f"/v1/journeys/{journey['id']}"
    first = await make(alice, f"{path}/versions", None)
    assert first["revision"] == 1
    assert (await alice.client.patch(f"/v1/segments/{segment}", json={"rule": {"tag": "new"}})).status_code == 200
    restored = await alice.client.put(f"{path}/draft/restoration", json={"version": 1}, headers={"If-Match": '"1"'})
    assert restored.json()["draft"] == draft
    exported = await export(alice, journey["id"])
    assert "template_version_id" not in exported["draft"]["steps"]["welcome"]
    second = await make(alice, f"{path}/versions", None)
    frozen = second["definition"]
    rules = (frozen["entry"]["triggers"][0]["rule"], frozen["steps"]["which"]["conditions"][0]["when"])
    assert (second["number"], second["revision"], rules) == (2, 2, ({"tag": "new"}, {"tag": "new"}))


async def test_a_version_that_does_not_say_its_revision_comes_back_as_the_draft_before_it(
    alice: Person, around: Surroundings, database: Database
) -> None:
    journey = await acme.publish(alice, around)
    path = f"/v1/journeys/{journey}"
    add = text(
        """INSERT INTO journey_versions (id, organization_id, journey_id, number, definition, content_hash, created_at)
        SELECT :id, organization_id, journey_id, :number, definition, content_hash, CAST(:at AS timestamptz) FROM journey_versions
        WHERE journey_id = :journey AND number = 1"""
    )
    async with database.organization(alice.organization_id) as session:
        for number, at in ((2, "2020-01-01T00:00:00Z"), (3, "2100-01-01T00:00:00Z")):
            await session.execute(add, {"id": new_id(), "number": number, "at": at, "journey": journey})
    unsaid = (await alice.client.get(f"{path}/versions/3")).json()
    assert unsaid["revision"] is None
    later = await alice.client.put(f"{path}/draft/restoration", json={"version": 3}, headers={"If-Match": '"1"'})
    assert later.json()["draft"] == around.welcome()
    thawed = await alice.client.put(f"{path}/draft/restoration", json={"version": 2}, headers={"If-Match": '"2"'})
    welcome = thawed.json()["draft"]["steps"]["welcome"]
    assert (welcome["template_version_id"], welcome["connection_id"]) == (None, None)
    assert (await alice.client.post(f"{path}/versions")).status_code == 200  # frozen again, it says the same


async def test_a_saved_revision_is_restored(alice: Person) -> None:
    journey = await make(alice, "/v1/journeys", {"name": "Ideas", "draft": {"idea": 1}})
    path = f"/v1/journeys/{journey['id']}"
    await alice.client.patch(f"{path}/draft", json={"draft": {"idea": 2}}, headers={"If-Match": '"1"'})
    restored = await alice.client.put(f"{path}/draft/restoration", json={"revision": 1}, headers={"If-Match": '"2"'})
    assert restored.json()["draft"] == {"idea": 1}
    revisions = (await alice.client.get(f"{path}/draft-revisions")).json()["items"]
    assert [revision["origin"] for revision in revisions] == ["edit", "edit", "restore"]
    for body, status in (({"revision": 9}, 404), ({"version": 1}, 404), ({}, 422), ({"version": 1, "revision": 1}, 422)):
        answer = await alice.client.put(f"{path}/draft/restoration", json=body, headers={"If-Match": '"3"'})
        assert answer.status_code == status, answer.text
    assert (await alice.client.put(f"{path}/draft/restoration", json={"revision": 1})).status_code == 412


async def test_a_duplicate_has_the_draft_and_a_history_of_its_own(alice: Person, bob: Person, around: Surroundings) -> None:
    journey = await acme.publish(alice, around)
    copy = await make(alice, f"/v1/journeys/{journey}/duplicates", {"name": "Another"})
    assert (copy["draft"], copy["revision"], copy["newest_version"]) == (around.welcome(), 1, None)
    [revision] = (await alice.client.get(f"/v1/journeys/{copy['id']}/draft-revisions")).json()["items"]
    assert revision["origin"] == "duplicate"
    assert (await alice.client.post(f"/v1/journeys/{journey}/duplicates", json={"name": "Another"})).status_code == 409
    assert (await bob.client.post(f"/v1/journeys/{journey}/duplicates", json={"name": "Bob's"})).status_code == 403


async def test_an_export_says_everything_by_name(alice: Person, bob: Person, rich: Document) -> None:
    document = await export(alice, rich["id"])
    assert document == await export(bob, rich["id"])
    steps = document["draft"]["steps"]
    assert (steps["again"]["template_id"], steps["again"]["topic_id"]) == ({"template": "Hello"}, {"topic": "tips"})
    assert steps["which"]["conditions"][0]["when"] == {"segment": {"segment": "Friends"}}
    assert document["topics"] == {"tips": {"name": "Tips", "description": "Once a month"}}
    assert document["segments"]["Friends"]["any"][1]["consent"]["topic_id"] == {"topic": "tips"}
    template = document["templates"]["Hello"]
    assert (template["content"]["subject"], [one["subject"] for one in template["pinned"].values()]) == ("Hi again", ["Hi"])
    assert rich["id"] not in json.dumps(document)


async def test_importing_what_was_exported_changes_nothing(alice: Person, rich: Document, database: Database) -> None:
    document = await export(alice, rich["id"])
    refused = await bring(alice, document, 409)
    assert "If-Match" in refused["detail"]
    for dry_run in (False, True):
        imported = await bring(alice, document, 200, replace=True, dry_run=dry_run)
        assert (imported["outcome"], imported["revision"]) == ("unchanged", 1)
        assert {part["outcome"] for part in imported["parts"]} == {"found"}
    assert (await bring(alice, document, 200, {"If-Match": '"1"'}))["outcome"] == "unchanged"
    await bring(alice, document, 412, {"If-Match": '"7"'})
    assert await actions(alice, database, rich["id"]) == ["journey.created"]


async def test_another_organization_gets_everything_that_it_lacks(
    alice: Person, charlie: Person, rich: Document, database: Database
) -> None:
    document = await export(alice, rich["id"])
    tried = await bring(charlie, document, 200, dry_run=True)
    assert (tried["outcome"], tried["journey_id"]) == ("created", None)
    assert (await charlie.client.get("/v1/templates")).json()["items"] == []
    imported = await bring(charlie, document, 201)
    assert [(part["kind"], part["name"], part["outcome"]) for part in imported["parts"]] == [
        ("topic", "tips", "created"),
        ("segment", "Friends", "created"),
        ("template", "Hello", "created"),
    ]
    assert tried["parts"] == imported["parts"]
    journey = imported["journey_id"]
    theirs = await export(charlie, journey)
    assert theirs["templates"] == document["templates"] and theirs["segments"] == document["segments"]
    problems = (await charlie.client.get(f"/v1/journeys/{journey}/check")).json()["problems"]
    assert {problem["code"] for problem in problems} <= {"no_connection"}
    assert (await bring(charlie, theirs, 200, replace=True))["outcome"] == "unchanged"
    made = (await charlie.client.get("/v1/audit-entries")).json()["items"]
    assert [entry["action"] for entry in made] == ["topic.created", "segment.created", "template.created", "journey.created"]


async def test_a_changed_document_changes_the_draft_and_leaves_the_parts_that_are_here(alice: Person, rich: Document) -> None:
    document = await export(alice, rich["id"])
    document["draft"]["steps"]["which"]["name"] = "Friend?"
    document["templates"]["Hello"]["content"]["subject"] = "Changed in git"
    imported = await bring(alice, document, 200, {"If-Match": '"1"'})
    assert (imported["outcome"], imported["revision"]) == ("updated", 2)
    assert {part["name"]: part["outcome"] for part in imported["parts"]} == {"tips": "found", "Friends": "found", "Hello": "differs"}
    revisions = (await alice.client.get(f"/v1/journeys/{rich['id']}/draft-revisions")).json()["items"]
    assert [revision["origin"] for revision in revisions] == ["edit", "import"]
    await bring(alice, document, 412, {"If-Match": '"1"'})


async def test_what_is_neither_here_nor_in_the_document_is_named_with_its_path(charlie: Person) -> None:
    draft = {
        "start": "a",
        "steps": {
            "a": {"kind": "send", "template_id": {"template": "Nowhere"}, "connection_id": {"connection": "Mail"}, "next": "b"},
            "b": {"kind": "branch", "conditions": [{"when": {"consent": {"topic": "gone", "channel": "email", "status": "none"}}}]},
        },
    }
    document = {"format": "leadstats.journey/1", "name": "Lost", "draft": draft}
    refused = await bring(charlie, document, 422)
    assert {(error["path"], error["code"]) for error in refused["errors"]} == {
        ("document.draft.steps.a.template_id", "unknown_template"),
        ("document.draft.steps.a.connection_id", "unknown_connection"),
        ("document.draft.steps.b.conditions[0].when.consent.topic", "unknown_topic"),
    }
    assert (await charlie.client.get("/v1/journeys")).json()["items"] == []


async def test_a_part_that_cannot_be_made_leaves_nothing(alice: Person, charlie: Person, rich: Document) -> None:
    document = await export(alice, rich["id"])
    document["templates"]["Hello"]["content"]["html"] = "{{ broken"
    refused = await bring(charlie, document, 422)
    assert refused["errors"][0]["path"] == "document.templates.Hello.html"
    document = await export(alice, rich["id"])
    document["segments"]["Friends"] = {"field": "attributes.unheard_of", "is": "exists"}
    refused = await bring(charlie, document, 422)
    assert refused["errors"][0]["path"] == "document.segments.Friends.field"
    document["segments"]["Friends"] = {"not": {"segment": {"segment": "Friends"}}}
    refused = await bring(charlie, document, 422)
    assert [(error["path"], error["code"]) for error in refused["errors"]] == [("document.segments.Friends.not.segment", "no_segments")]
    assert refused["errors"][0]["message"] == "Only a journey's rule can name a segment; repeat its rule here."
    document["segments"]["Friends"] = {"segment": "by its name"}
    refused = await bring(charlie, document, 422)
    assert refused["errors"][0]["message"] == "Give an id, such as 0190a1b2-0000-7000-8000-000000000001."
    for what in ("topics", "templates", "segments", "journeys"):
        assert (await charlie.client.get(f"/v1/{what}")).json()["items"] == []


async def test_a_template_in_use_gets_no_older_version(alice: Person, charlie: Person, rich: Document) -> None:
    said = {"subject": "Ours", "html": "<p>{{ unsubscribe_url }}</p>"}
    await make(charlie, "/v1/templates", {"name": "Hello", "channel": "email", **said})
    refused = await bring(charlie, await export(alice, rich["id"]), 422)
    assert [error["code"] for error in refused["errors"]] == ["unknown_template_version"]


@pytest.mark.parametrize("lacking", ["contacts.write", "segments.write", "templates.write"])
async def test_making_a_part_needs_the_permission_for_it(
    alice: Person, charlie: Person, rich: Document, app: FastAPI, lacking: str
) -> None:
    document = await export(alice, rich["id"])
    scopes = {"journeys.read", "journeys.write", "contacts.write", "segments.write", "templates.write"} - {lacking}
    key = await make(charlie, "/v1/api-keys", {"name": "CI", "scopes": sorted(scopes)})
    async with anonymous(app, Authorization=f"Bearer {key['secret']}") as client:
        refused = await client.post("/v1/journey-imports", json={"document": document})
    assert (refused.status_code, lacking in refused.json()["detail"]) == (403, True)
    assert (await charlie.client.get("/v1/topics")).json()["items"] == []


async def test_importing_needs_to_be_allowed(alice: Person, bob: Person, rich: Document) -> None:
    await bring(bob, await export(alice, rich["id"]), 403)
