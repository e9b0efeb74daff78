import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Response
from sqlalchemy import text

from models.domain.permissions import Role
from models.store import access
from models.store.session import Database
from models.tables.access import ApiKey
from models.tables.base import new_id
from tests.api.conftest import Person, anonymous

NEW = {"name": "Billing", "scopes": ["organization.read"]}


async def test_a_new_key_works_and_its_secret_is_shown_once(app: FastAPI, alice: Person) -> None:
    made = (await alice.client.post("/v1/api-keys", json=NEW)).json()
    async with anonymous(app, Authorization=f"Bearer {made['secret']}") as client:
        assert (await client.get("/v1/organization")).json()["id"] == str(alice.organization_id)
        assert (await client.get("/v1/api-keys")).status_code == 403
    listed = (await alice.client.get("/v1/api-keys")).json()["items"]
    shown = next(key for key in listed if key["id"] == made["id"])
    assert "secret" not in shown
    assert made["secret"].startswith(f"ls_{shown['prefix']}_")


async def test_only_a_hash_of_the_secret_is_kept(database: Database, alice: Person) -> None:
    made = (await alice.client.post("/v1/api-keys", json=NEW)).json()
    async with database.organization(alice.organization_id) as session:
        rows = str((await session.execute(text("SELECT array_agg(row_to_json(api_keys))::text FROM api_keys"))).scalar_one())
    assert made["secret"].rpartition("_")[2] not in rows


async def test_a_revoked_key_stops_at_once(app: FastAPI, alice: Person) -> None:
    made = (await alice.client.post("/v1/api-keys", json=NEW)).json()
    assert [(await alice.client.delete(f"/v1/api-keys/{made['id']}")).status_code for _ in range(2)] == [204, 204]
    async with anonymous(app, Authorization=f"Bearer {made['secret']}") as client:
        answer = await client.get("/v1/organization")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    entries = (await alice.client.get("/v1/audit-entries", params={"subject_id": made["id"]})).json()["items"]
    assert [entry["action"] for entry in entries] == ["api_key.created", "api_key.revoked"]


async def test_a_key_expires(app: FastAPI, database: Database, alice: Person) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    made = (await alice.client.post("/v1/api-keys", json=NEW | {"expires_at": tomorrow})).json()
    async with anonymous(app, Authorization=f"Bearer {made['secret']}") as client:
        assert (await client.get("/v1/organization")).status_code == 200
        async with database.organization(alice.organization_id) as session:
            await session.execute(text("UPDATE api_keys SET expires_at = now() WHERE id = :id"), {"id": made["id"]})
        assert (await client.get("/v1/organization")).status_code == 401


@pytest.mark.parametrize("expires_at", ["2001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "2030-01-01T00:00:00", "soon"])
async def test_an_expiry_lies_in_a_near_enough_future(alice: Person, expires_at: str) -> None:
    answer = await alice.client.post("/v1/api-keys", json=NEW | {"expires_at": expires_at})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "expires_at")


async def test_a_key_cannot_give_what_it_does_not_have(app: FastAPI, alice: Person) -> None:
    limited = (await alice.client.post("/v1/api-keys", json={"name": "Limited", "scopes": ["api_keys.write"]})).json()
    async with anonymous(app, Authorization=f"Bearer {limited['secret']}") as client:
        answer = await client.post("/v1/api-keys", json={"name": "More", "scopes": ["api_keys.write", "contacts.read"]})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "beyond_yours")


MAKER = {"name": "Maker", "scopes": ["api_keys.write", "organization.read"]}


async def make_with(app: FastAPI, secret: str, **changes: Any) -> Response:
    """A key that may make others, made with the key `secret`."""
    async with anonymous(app, Authorization=f"Bearer {secret}") as client:
        return await client.post("/v1/api-keys", json=MAKER | changes)


async def status_of(app: FastAPI, secret: str) -> int:
    async with anonymous(app, Authorization=f"Bearer {secret}") as client:
        return (await client.get("/v1/organization")).status_code


async def test_a_key_made_with_a_key_does_not_outlive_it(app: FastAPI, alice: Person) -> None:
    soon, later = (datetime.now(UTC) + timedelta(days=days) for days in (1, 2))
    maker = (await make_with(app, alice.api_key, expires_at=soon.isoformat())).json()
    made = (await make_with(app, maker["secret"])).json()
    assert (made["made_by"], datetime.fromisoformat(made["expires_at"])) == (maker["id"], soon)
    beyond = await make_with(app, maker["secret"], expires_at=later.isoformat())
    assert (beyond.status_code, beyond.json()["errors"][0]["path"]) == (422, "expires_at")
    before = await make_with(app, maker["secret"], expires_at=(soon - timedelta(hours=1)).isoformat())
    assert before.status_code == 201
    assert (await make_with(app, alice.api_key)).json()["expires_at"] is None


async def test_revoking_a_key_revokes_what_was_made_with_it(app: FastAPI, alice: Person) -> None:
    first = (await make_with(app, alice.api_key)).json()
    second = (await make_with(app, first["secret"])).json()
    third = (await make_with(app, second["secret"])).json()
    other = (await make_with(app, alice.api_key)).json()
    await alice.client.delete(f"/v1/api-keys/{first['id']}")
    assert [await status_of(app, key["secret"]) for key in (first, second, third, other)] == [401, 401, 401, 200]
    listed = {key["id"]: key for key in (await alice.client.get("/v1/api-keys")).json()["items"]}
    assert all(listed[key["id"]]["revoked_at"] for key in (first, second, third))
    entries = (await alice.client.get("/v1/audit-entries", params={"action": "api_key.revoked"})).json()["items"]
    subjects = [entry["subject"]["id"] for entry in entries]
    assert subjects[0] == first["id"] and sorted(subjects) == sorted(key["id"] for key in (first, second, third))


async def test_a_key_that_is_made_while_its_maker_is_being_revoked_is_revoked_too(app: FastAPI, database: Database, alice: Person) -> None:
    maker = (await make_with(app, alice.api_key)).json()
    async with database.organization(alice.organization_id) as session:
        made = ApiKey(organization_id=alice.organization_id, name="Late", prefix="late", secret_hash=new_id().bytes, scopes=[])
        assert await access.making_api_key(session, UUID(maker["id"])) is not None
        revoking = asyncio.create_task(alice.client.delete(f"/v1/api-keys/{maker['id']}"))
        await waiting_for_a_lock(database)
        made.made_by = UUID(maker["id"])
        await access.insert_api_key(session, made)
    assert (await revoking).status_code == 204
    async with database.organization(alice.organization_id) as session:
        assert (await session.get_one(ApiKey, made.id)).revoked_at is not None
        assert await access.making_api_key(session, UUID(maker["id"])) is None


async def waiting_for_a_lock(database: Database) -> None:
    """Until somebody of this database's waits for another's row."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = current_user AND query ~ 'api_keys'")
    async with asyncio.timeout(60):
        while True:
            async with database.outside() as session:
                if (await session.execute(query)).scalar_one():
                    return
            await asyncio.sleep(0.02)


async def test_a_key_whose_maker_is_disabled_does_not_work(app: FastAPI, database: Database, alice: Person) -> None:
    for disabled_at, status in (("now()", 401), ("NULL", 200)):
        async with database.organization(alice.organization_id) as session:
            await session.execute(text(f"UPDATE users SET disabled_at = {disabled_at} WHERE id = :id"), {"id": alice.user_id})
        assert await status_of(app, alice.api_key) == status


async def test_an_unknown_scope_is_refused(alice: Person) -> None:
    answer = await alice.client.post("/v1/api-keys", json=NEW | {"scopes": ["contacts.read", "contacts.explode"]})
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["path"], error["code"]) == (422, "scopes[1]", "unknown_scope")


async def test_a_key_does_no_more_than_its_maker_may_do_now(app: FastAPI, database: Database, alice: Person) -> None:
    made = (await alice.client.post("/v1/api-keys", json={"name": "Wide", "scopes": ["organization.read", "organization.write"]})).json()
    async with anonymous(app, Authorization=f"Bearer {made['secret']}") as client:
        assert (await client.patch("/v1/organization", json={"name": "Acme"})).status_code == 200
        async with database.organization(alice.organization_id) as session:
            await access.set_role(session, alice.user_id, Role.VIEWER)
        assert (await client.patch("/v1/organization", json={"name": "Acme"})).status_code == 403
        assert (await client.get("/v1/organization")).status_code == 200


async def test_the_last_use_is_noted_at_most_once_a_minute(database: Database, alice: Person) -> None:
    async def last_used() -> datetime:
        async with database.organization(alice.organization_id) as session:
            query = text("SELECT last_used_at FROM api_keys WHERE id = :id")
            found: datetime = (await session.execute(query, {"id": alice.api_key_id})).scalar_one()
        return found

    await alice.client.get("/v1/organization")
    first = await last_used()
    await alice.client.get("/v1/organization")
    assert await last_used() == first
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE api_keys SET last_used_at = now() - interval '2 minutes'"))
    await alice.client.get("/v1/organization")
    assert await last_used() > first


@pytest.mark.parametrize("authorization", [b"", b"Bearer", b"Bearer ls_1_2", b"Basic bHM6bHM=", b"ls_secret", b"Bearer ls_1_\xe9\xff"])
async def test_what_is_no_key_is_refused(client: AsyncClient, authorization: bytes) -> None:
    answer = await client.get("/v1/organization", headers={b"Authorization": authorization})
    assert answer.status_code == 401


async def test_a_suspended_organization_can_be_read_only(database: Database, alice: Person) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE organizations SET status = 'suspended'"))
    assert (await alice.client.get("/v1/organization")).json()["status"] == "suspended"
    answer = await alice.client.post("/v1/api-keys", json=NEW)
    assert (answer.status_code, "suspended" in answer.json()["detail"]) == (403, True)


async def test_a_viewer_makes_no_keys(bob: Person) -> None:
    assert (await bob.client.post("/v1/api-keys", json=NEW)).status_code == 403


async def test_another_organization_sees_404(alice: Person, charlie: Person) -> None:
    assert (await charlie.client.delete(f"/v1/api-keys/{alice.api_key_id}")).status_code == 404
    assert (await alice.client.get("/v1/organization")).status_code == 200
