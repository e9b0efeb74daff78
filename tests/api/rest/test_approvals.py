"""Alice owns Acme and writes; Ann and Ben approve there."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI

from models.domain.permissions import Role
from models.store.session import Database
from models.tables.base import new_id
from tests.api.conftest import Cast, Person, enroll
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions

APPROVED = {"decision": "approved"}


@pytest_asyncio.fixture(loop_scope="session")
async def around(database: Database, alice: Person) -> Surroundings:
    await alice.client.patch("/v1/organization", json={"approval_required": True})
    return await acme.surround(database, alice)


@pytest_asyncio.fixture(loop_scope="session")
async def ann(cast: Cast, database: Database, app: FastAPI, password_hash: str) -> AsyncIterator[Person]:
    alice = cast.alice
    person = await enroll(database, app, "Ann", Role.APPROVER, alice.organization_id, alice.slug, password_hash)
    yield person
    await person.client.aclose()


@pytest_asyncio.fixture(loop_scope="session")
async def admin(cast: Cast, database: Database, app: FastAPI, password_hash: str) -> AsyncIterator[Person]:
    alice = cast.alice
    person = await enroll(database, app, "Adam", Role.ADMIN, alice.organization_id, alice.slug, password_hash)
    yield person
    await person.client.aclose()


async def create(person: Person, draft: Any) -> str:
    created = await person.client.post("/v1/journeys", json={"name": f"Welcome {new_id().hex}", "draft": draft})
    return f"/v1/journeys/{created.json()['id']}"


async def ask(person: Person, journey: str) -> str:
    asked = await person.client.post(f"{journey}/approvals", json={"note": "please"})
    assert asked.status_code == 201, asked.text
    return str(asked.headers["Location"])


async def publish(person: Person, journey: str) -> tuple[int, str | None]:
    answer = await person.client.post(f"{journey}/versions")
    return answer.status_code, answer.json().get("code")


async def test_the_setting_is_the_organizations_and_on_record(alice: Person, bob: Person) -> None:
    assert (await alice.client.get("/v1/organization")).json()["approval_required"] is False
    assert (await alice.client.patch("/v1/organization", json={"approval_required": True})).json()["approval_required"] is True
    assert (await bob.client.patch("/v1/organization", json={"approval_required": False})).status_code == 403
    entries = (await alice.client.get("/v1/audit-entries?action=organization.changed")).json()["items"]
    assert [entry["details"] for entry in entries] == [{"fields": ["approval_required"]}]


async def test_what_another_person_approved_is_published(alice: Person, ann: Person, around: Surroundings, database: Database) -> None:
    journey = await create(alice, around.welcome())
    assert await publish(alice, journey) == (409, "approval_required")
    asked = await ask(alice, journey)
    again = await alice.client.post(f"{journey}/approvals")
    assert (again.status_code, again.headers["Location"]) == (200, asked)
    found = (await ann.client.get(asked)).json()
    assert (found["decision"], found["current"], found["note"]) == (None, True, "please")
    assert await publish(alice, journey) == (409, "approval_required")
    for _ in range(2):  # the second time changes nothing
        decided = await ann.client.put(f"{asked}/decision", json=APPROVED | {"reason": "reads well"})
        assert (decided.json()["decision"], decided.json()["decided_by"]) == ("approved", str(ann.user_id)), decided.text
    assert await publish(alice, journey) == (201, None)
    version = (await alice.client.get(f"{journey}/versions/1")).json()
    assert version["content_hash"] == found["content_hash"] and version["definition"] == found["definition"]
    assert await actions(alice, database, journey.rpartition("/")[2]) == [
        "journey.created",
        "journey.approval_requested",
        "journey.approved",
        "journey.published",
    ]


async def test_nobody_approves_their_own_work(alice: Person, admin: Person, ann: Person, around: Surroundings) -> None:
    journey = await create(alice, around.welcome())
    draft = {"draft": around.welcome(name="Hello")}
    await admin.client.patch(f"{journey}/draft", json=draft, headers={"If-Match": '"1"'})
    asked = await ask(admin, journey)
    for author in (alice, admin):
        refused = await author.client.put(f"{asked}/decision", json=APPROVED)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")
    assert (await ann.client.put(f"{asked}/decision", json=APPROVED)).status_code == 200
    assert await publish(alice, journey) == (201, None)
    # Who wrote the version before is free to judge what others change afterwards.
    draft = {"draft": around.welcome(name="Hello again")}
    await admin.client.patch(f"{journey}/draft", json=draft, headers={"If-Match": '"2"'})
    asked = await ask(admin, journey)
    assert (await alice.client.put(f"{asked}/decision", json=APPROVED)).status_code == 200


@pytest.mark.parametrize("change", ["draft", "template", "segment"])
async def test_any_change_voids_the_approval(alice: Person, ann: Person, around: Surroundings, database: Database, change: str) -> None:
    segment = str(await acme.add_segment(database, alice, {"tag": "customer"}))
    draft = around.welcome()
    draft["entry"] = {"triggers": [{"kind": "segment_entered", "segment_id": segment}]}
    journey = await create(alice, draft)
    asked, late = await ask(alice, journey), {"draft": draft | {"max_visits": 7}}
    assert (await ann.client.put(f"{asked}/decision", json=APPROVED)).status_code == 200
    if change == "draft":
        await alice.client.patch(f"{journey}/draft", json=late, headers={"If-Match": '"1"'})
    elif change == "segment":
        await alice.client.patch(f"/v1/segments/{segment}", json={"rule": {"tag": "staff"}})
    else:
        async with database.organization(alice.organization_id) as session:
            await acme.add_version(session, alice.organization_id, around.template_id, 2, "Hello again")
    assert await publish(alice, journey) == (409, "approval_required")
    assert (await alice.client.get(asked)).json()["current"] is False


async def test_what_has_changed_since_cannot_be_approved_and_what_is_rejected_not_published(
    alice: Person, ann: Person, around: Surroundings
) -> None:
    journey = await create(alice, around.welcome())
    stale = await ask(alice, journey)
    await alice.client.patch(f"{journey}/draft", json={"draft": around.welcome(name="Hello")}, headers={"If-Match": '"1"'})
    assert (await ann.client.put(f"{stale}/decision", json=APPROVED)).status_code == 409
    fresh = await ask(alice, journey)
    assert (await ann.client.put(f"{fresh}/decision", json={"decision": "rejected", "reason": "a typo"})).status_code == 200
    assert (await ann.client.put(f"{fresh}/decision", json=APPROVED)).status_code == 409
    assert await publish(alice, journey) == (409, "approval_required")
    listed = (await alice.client.get(f"{journey}/approvals")).json()["items"]
    assert [(one["decision"], one["reason"]) for one in listed] == [(None, None), ("rejected", "a typo")]


async def test_a_viewer_and_an_approver_may_do_what_their_roles_say(alice: Person, bob: Person, ann: Person, around: Surroundings) -> None:
    journey = await create(alice, around.welcome())
    asked = await ask(alice, journey)
    assert (await bob.client.get(asked)).status_code == 200
    refused = [
        await bob.client.post(f"{journey}/approvals"),
        await bob.client.put(f"{asked}/decision", json=APPROVED),
        await ann.client.post(f"{journey}/approvals"),
    ]
    assert {answer.status_code for answer in refused} == {403}


async def test_an_unfinished_draft_cannot_be_asked_about(alice: Person, around: Surroundings) -> None:
    journey = await create(alice, {"start": "nowhere"})
    assert (await alice.client.post(f"{journey}/approvals")).status_code == 422
    other = await create(alice, around.welcome())
    assert other and (await alice.client.post(f"{journey}/approvals", headers={"If-Match": '"9"'})).status_code == 412
