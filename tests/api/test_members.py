from typing import Any
from uuid import uuid4

import pytest
from httpx2 import AsyncClient

from models.domain.permissions import Role
from models.store import access
from models.store.session import Database
from tests.api.conftest import PASSWORD, Person


def newcomer(**changes: Any) -> dict[str, Any]:
    return {
        "email": f"dora-{uuid4().hex[:8]}@example.com",
        "name": "Dora",
        "role": "designer",
        "password": "long enough password",
    } | changes


async def session_of(client: AsyncClient, person: Person) -> dict[str, str]:
    """Headers of a console session."""
    answer = await client.post("/v1/session", json={"email": person.email, "password": PASSWORD, "organization": person.slug})
    return {"X-CSRF-Token": answer.json()["csrf_token"]}


async def names_in(person: Person) -> dict[str, str]:
    """What the person's organization calls its members, by id."""
    return {member["id"]: member["name"] for member in (await person.client.get("/v1/members")).json()["items"]}


async def test_a_new_member_can_log_in(client: AsyncClient, alice: Person) -> None:
    body = newcomer()
    made = await alice.client.post("/v1/members", json=body)
    assert (made.status_code, made.json()["role"]) == (201, "designer")
    answer = await client.post("/v1/session", json={"email": body["email"], "password": body["password"]})
    assert answer.json()["user"]["id"] == made.json()["id"]
    listed = (await alice.client.get("/v1/members")).json()["items"]
    assert {member["role"] for member in listed} == {"owner", "viewer", "designer"}


async def test_somebody_known_elsewhere_keeps_their_password(client: AsyncClient, alice: Person, charlie: Person) -> None:
    made = await alice.client.post("/v1/members", json=newcomer(email=charlie.email, password="another password"))
    assert made.json()["id"] == str(charlie.user_id)
    login = {"email": charlie.email, "organization": alice.slug}
    assert (await client.post("/v1/session", json=login | {"password": "another password"})).status_code == 401
    assert (await client.post("/v1/session", json=login | {"password": PASSWORD})).status_code == 201


@pytest.mark.parametrize("name", ["C. Brown", ""])
async def test_what_another_organization_calls_somebody_is_not_told(client: AsyncClient, alice: Person, charlie: Person, name: str) -> None:
    made = await alice.client.post("/v1/members", json=newcomer(email=charlie.email, name=name))
    assert (made.status_code, made.json()["name"], made.json()["email"]) == (201, name, charlie.email)
    names = {person.slug: await names_in(person) for person in (alice, charlie)}
    assert names[alice.slug][made.json()["id"]] == name
    assert names[charlie.slug][made.json()["id"]] == "Charlie"
    changed = await alice.client.patch(f"/v1/members/{charlie.user_id}", json={"role": "support"})
    assert changed.json()["name"] == name
    for person, shown in ((alice, name), (charlie, "Charlie")):
        login = {"email": charlie.email, "password": PASSWORD, "organization": person.slug}
        assert (await client.post("/v1/session", json=login)).json()["user"]["name"] == shown


async def test_joining_another_organization_changes_nothing_about_the_login_at_home(
    client: AsyncClient, alice: Person, charlie: Person
) -> None:
    right = {"email": charlie.email, "password": PASSWORD}
    assert (await client.post("/v1/session", json=right)).json()["organization"]["slug"] == charlie.slug
    await alice.client.post("/v1/members", json=newcomer(email=charlie.email))
    home = await client.post("/v1/session", json=right | {"organization": charlie.slug})
    assert (home.status_code, home.json()["user"]["role"]) == (201, "owner")
    unnamed = await client.post("/v1/session", json=right)
    assert (unnamed.status_code, unnamed.json()["errors"][0]["path"]) == (422, "organization")
    assert charlie.slug in unnamed.text and alice.slug in unnamed.text
    guessed = await client.post("/v1/session", json=right | {"password": "wrong password"})
    assert guessed.status_code == 401 and charlie.slug not in guessed.text and alice.slug not in guessed.text


async def test_a_member_is_added_once(alice: Person, bob: Person) -> None:
    assert (await alice.client.post("/v1/members", json=newcomer(email=bob.email))).status_code == 409


@pytest.mark.parametrize("wrong", [{"email": "no address"}, {"password": "short"}, {"role": "king"}, {"name": "x" * 201}, {"extra": 1}])
async def test_a_field_that_breaks_a_rule_is_named(alice: Person, wrong: dict[str, Any]) -> None:
    answer = await alice.client.post("/v1/members", json=newcomer(**wrong))
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, f"{next(iter(wrong))}")


async def test_a_role_changes_and_the_record_says_so(alice: Person, bob: Person) -> None:
    answer = await alice.client.patch(f"/v1/members/{bob.user_id}", json={"role": "support"})
    assert (answer.status_code, answer.json()["role"]) == (200, "support")
    entries = (await alice.client.get("/v1/audit-entries", params={"action": "member.role_changed"})).json()["items"]
    assert [entry["details"] for entry in entries] == [{"from": "viewer", "to": "support"}]


async def test_a_removed_member_is_out_with_their_keys(client: AsyncClient, alice: Person, bob: Person) -> None:
    await session_of(client, bob)
    assert (await alice.client.delete(f"/v1/members/{bob.user_id}")).status_code == 204
    assert (await bob.client.get("/v1/organization")).status_code == 401
    assert (await client.get("/v1/session")).status_code == 401
    assert (await alice.client.delete(f"/v1/members/{bob.user_id}")).status_code == 404


async def test_the_last_owner_stays(client: AsyncClient, alice: Person) -> None:
    headers = await session_of(client, alice)
    path = f"/v1/members/{alice.user_id}"
    assert (await client.delete(path, headers=headers)).status_code == 409
    assert (await client.patch(path, json={"role": "viewer"}, headers=headers)).status_code == 409


async def test_an_admin_does_not_touch_owners(client: AsyncClient, database: Database, alice: Person, bob: Person) -> None:
    async with database.organization(bob.organization_id) as session:
        await access.set_role(session, bob.user_id, Role.ADMIN)
    headers = await session_of(client, bob)
    assert (await client.post("/v1/members", json=newcomer(role="owner"), headers=headers)).status_code == 403
    assert (await client.patch(f"/v1/members/{alice.user_id}", json={"role": "viewer"}, headers=headers)).status_code == 403
    assert (await client.post("/v1/members", json=newcomer(role="admin"), headers=headers)).status_code == 201


async def test_an_api_key_makes_no_owners(alice: Person) -> None:
    assert (await alice.client.post("/v1/members", json=newcomer(role="owner"))).status_code == 403


async def test_another_organization_sees_404(alice: Person, charlie: Person) -> None:
    path = f"/v1/members/{alice.user_id}"
    assert (await charlie.client.patch(path, json={"role": "viewer"})).status_code == 404
    assert (await charlie.client.delete(path)).status_code == 404
