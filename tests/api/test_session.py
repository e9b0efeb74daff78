from datetime import timedelta
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import text

from api.dependencies import Services
from models.domain.permissions import Role
from models.settings import Settings
from models.store import access, login_attempts
from models.store.session import Database
from models.tables.base import new_id
from tests.api.conftest import PASSWORD, Person


def login(person: Person, **changes: Any) -> dict[str, Any]:
    return {"email": person.email, "password": PASSWORD} | changes


async def from_address(app: FastAPI, address: str, body: dict[str, Any]) -> int:
    transport = ASGITransport(app=app, client=(address, 1))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.post("/v1/session", json=body)).status_code


async def test_a_login_gives_cookies_that_work(client: AsyncClient, alice: Person) -> None:
    answer = await client.post("/v1/session", json=login(alice))
    assert answer.status_code == 201
    assert answer.json()["organization"]["id"] == str(alice.organization_id)
    assert answer.json()["user"]["role"] == "owner"
    session, csrf = answer.headers.get_list("set-cookie")
    assert session.startswith("leadstats_session=") and "HttpOnly" in session and "SameSite=lax" in session
    assert csrf.startswith("leadstats_csrf=") and "HttpOnly" not in csrf and "SameSite=lax" in csrf
    shown = (await client.get("/v1/session")).json()
    assert shown["user"]["email"] == alice.email
    assert "contacts.read" in shown["permissions"]


async def test_cookies_are_secure_behind_https(app: FastAPI, services: Services, alice: Person) -> None:
    from api.app import create_app

    secure = services.settings.model_copy(update={"secure_cookies": True})
    https = create_app(Services(secure, services.database, services.temporal))
    async with AsyncClient(transport=ASGITransport(app=https), base_url="https://test") as client:
        answer = await client.post("/v1/session", json=login(alice))
    assert all("Secure" in cookie for cookie in answer.headers.get_list("set-cookie"))


async def test_an_unsafe_method_with_a_cookie_needs_the_csrf_token(client: AsyncClient, alice: Person) -> None:
    csrf = (await client.post("/v1/session", json=login(alice))).json()["csrf_token"]
    change = {"name": "Acme & Sons"}
    assert (await client.patch("/v1/organization", json=change)).status_code == 403
    assert (await client.patch("/v1/organization", json=change, headers={"X-CSRF-Token": "guess"})).status_code == 403
    assert (await client.patch("/v1/organization", json=change, headers={"X-CSRF-Token": csrf})).status_code == 200


async def test_the_csrf_token_of_another_session_is_refused(client: AsyncClient, app: FastAPI, alice: Person, bob: Person) -> None:
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://test") as other:
        csrf = (await other.post("/v1/session", json=login(bob))).json()["csrf_token"]
    await client.post("/v1/session", json=login(alice))
    assert (await client.delete("/v1/session", headers={"X-CSRF-Token": csrf})).status_code == 403


async def test_a_session_ends_with_logging_out(client: AsyncClient, alice: Person) -> None:
    csrf = (await client.post("/v1/session", json=login(alice))).json()["csrf_token"]
    token = client.cookies["leadstats_session"]
    assert (await client.delete("/v1/session", headers={"X-CSRF-Token": csrf})).status_code == 204
    assert "leadstats_session" not in client.cookies
    assert (await client.get("/v1/session", headers={"Cookie": f"leadstats_session={token}"})).status_code == 401


async def test_a_session_expires(client: AsyncClient, database: Database, alice: Person) -> None:
    await client.post("/v1/session", json=login(alice))
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE sessions SET expires_at = now() - interval '1 second'"))
    assert (await client.get("/v1/session")).status_code == 401


async def test_a_disabled_user_is_out_at_once(client: AsyncClient, database: Database, alice: Person) -> None:
    await client.post("/v1/session", json=login(alice))
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE users SET disabled_at = now() WHERE id = :id"), {"id": alice.user_id})
    assert (await client.get("/v1/session")).status_code == 401
    assert (await client.post("/v1/session", json=login(alice))).status_code == 401


async def test_only_hashes_of_tokens_are_kept(client: AsyncClient, database: Database, alice: Person) -> None:
    csrf = (await client.post("/v1/session", json=login(alice))).json()["csrf_token"]
    async with database.organization(alice.organization_id) as session:
        row = str((await session.execute(text("SELECT row_to_json(sessions)::text FROM sessions"))).scalar_one())
    assert client.cookies["leadstats_session"] not in row and csrf not in row


@pytest.mark.parametrize("wrong", [{"password": "wrong password"}, {"email": "nobody@example.com"}, {"organization": "another"}])
async def test_whatever_is_wrong_the_answer_is_the_same(client: AsyncClient, alice: Person, wrong: dict[str, str]) -> None:
    answer = await client.post("/v1/session", json=login(alice, **wrong))
    assert answer.status_code == 401
    assert answer.json()["detail"] == "Email, password or organization is wrong."
    assert "set-cookie" not in answer.headers


async def test_the_email_is_matched_whatever_its_case(client: AsyncClient, alice: Person) -> None:
    assert (await client.post("/v1/session", json=login(alice, email=alice.email.upper()))).status_code == 201


async def test_a_member_of_several_organizations_names_one(client: AsyncClient, database: Database, alice: Person, charlie: Person) -> None:
    async with database.organization(alice.organization_id) as session:
        await access.insert_membership(session, charlie.user_id, Role.SUPPORT)
    answer = await client.post("/v1/session", json=login(charlie))
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "organization")
    answer = await client.post("/v1/session", json=login(charlie, organization=alice.slug))
    assert (answer.status_code, answer.json()["user"]["role"]) == (201, "support")


async def test_the_sixth_failure_for_an_email_waits(client: AsyncClient, alice: Person) -> None:
    wrong = login(alice, password="wrong password")
    assert [(await client.post("/v1/session", json=wrong)).status_code for _ in range(5)] == [401] * 5
    answer = await client.post("/v1/session", json=login(alice))
    assert answer.status_code == 429
    assert 800 < int(answer.headers["retry-after"]) <= 900


async def test_an_unknown_email_is_throttled_alike(client: AsyncClient) -> None:
    unknown = {"email": f"{new_id()}@example.com", "password": "wrong password"}
    assert [(await client.post("/v1/session", json=unknown)).status_code for _ in range(6)] == [401] * 5 + [429]


async def test_a_good_login_forgets_the_failures(client: AsyncClient, alice: Person) -> None:
    for _ in range(2):
        for _ in range(4):
            await client.post("/v1/session", json=login(alice, password="wrong password"))
        assert (await client.post("/v1/session", json=login(alice))).status_code == 201


async def test_failures_are_forgotten_after_a_quarter_of_an_hour(client: AsyncClient, services: Services, alice: Person) -> None:
    for _ in range(5):
        await client.post("/v1/session", json=login(alice, password="wrong password"))
    for minutes, status in ((13, 429), (2, 201)):
        failed_earlier(services.settings, alice, minutes)
        assert (await client.post("/v1/session", json=login(alice))).status_code == status


def failed_earlier(settings: Settings, person: Person, minutes: int) -> None:
    """By so much, all that went wrong with the person's email. The application's own role may not rewrite times."""
    assert settings.owner_database_url is not None
    hashed = settings.keyed_hash("login-attempts", "email", person.email)
    with psycopg.connect(settings.owner_database_url.get_secret_value()) as owner:
        owner.execute(
            "UPDATE login_attempts SET attempted_at = attempted_at - make_interval(mins => %s) WHERE subject_hash = %s", (minutes, hashed)
        )


async def test_fifty_failures_from_one_address_wait(app: FastAPI, services: Services, alice: Person) -> None:
    address = f"2001:db8::{new_id().hex[-4:]}"
    subject = login_attempts.Attempts(services.settings.keyed_hash("login-attempts", "address", address), 50)
    async with services.database.outside() as session:
        for _ in range(50):
            assert await login_attempts.note_attempt(session, [subject], timedelta(minutes=15)) is None
    assert await from_address(app, address, login(alice)) == 429
    assert await from_address(app, "2001:db8::ffff:1", login(alice)) == 201


async def test_neither_email_nor_address_is_kept_with_an_attempt(client: AsyncClient, database: Database, alice: Person) -> None:
    await client.post("/v1/session", json=login(alice, password="wrong password"))
    async with database.outside() as session:
        rows = str((await session.execute(text("SELECT array_agg(row_to_json(login_attempts))::text FROM login_attempts"))).scalar_one())
    assert alice.email not in rows and alice.email.encode().hex() not in rows and "127.0.0.1" not in rows
