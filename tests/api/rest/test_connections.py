from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from api.commands.connections import create_sandbox_connection
from api.dependencies import Services
from models.domain.audit import SYSTEM
from models.sandbox_account import sandbox_password
from models.settings import Settings
from models.store.session import Database
from tests.api.conftest import Person
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings
from tests.api.rest.fake_temporal import FakeTemporal

SMTP: dict[str, Any] = {
    "name": "Newsletter",
    "host": "smtp.example.com",
    "port": 587,
    "username": "acme",
    "password": "open sesame",
    "sender_address": "news@example.com",
}


@pytest_asyncio.fixture(loop_scope="session")
async def services(served: Settings, database: Database, temporal: Any) -> Services:
    return Services(settings=served, database=database, temporal=temporal)


async def create(person: Person, **changes: Any) -> dict[str, Any]:
    answer = await person.client.post("/v1/connections", json={**SMTP, **changes})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_a_password_goes_in_and_never_comes_out(alice: Person) -> None:
    created = await create(alice)
    path = f"/v1/connections/{created['id']}"
    changed = await alice.client.patch(path, json={"password": "open barley", "sender_name": "Acme"})
    for answer in (await alice.client.get(path), await alice.client.get("/v1/connections"), changed):
        assert answer.status_code == 200
        assert "open" not in answer.text and "password" not in answer.json()
    assert (await alice.client.get(path)).json()["has_password"]


async def test_a_password_does_not_follow_to_another_host(alice: Person) -> None:
    path = f"/v1/connections/{(await create(alice))['id']}"
    refused = await alice.client.patch(path, json={"host": "evil.example.com"})
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "password")
    assert (await alice.client.patch(path, json={"host": "new.example.com", "password": "x"})).json()["host"] == "new.example.com"


async def test_what_cannot_work_is_refused(alice: Person) -> None:
    for changes, path in (
        ({"security": "none"}, "security"),
        ({"password": None}, "password"),
        ({"username": None}, "username"),
        ({"sender_name": "a\r\nBcc: eve"}, "sender_name"),
        ({"sender_address": "nobody"}, "sender_address"),
        ({"rate_per_second": 0}, "rate_per_second"),
        ({"host": "a b"}, "host"),
    ):
        answer = await alice.client.post("/v1/connections", json={**SMTP, **changes})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, path), answer.text


async def test_one_default_at_a_time_and_it_is_not_deleted_first(alice: Person) -> None:
    first = await create(alice, is_default=True)
    second = await create(alice, name="Second", is_default=True)
    assert not (await alice.client.get(f"/v1/connections/{first['id']}")).json()["is_default"]
    assert (await alice.client.delete(f"/v1/connections/{second['id']}")).status_code == 409
    assert (await alice.client.delete(f"/v1/connections/{first['id']}")).status_code == 204
    assert (await alice.client.delete(f"/v1/connections/{second['id']}")).status_code == 204
    assert (await alice.client.get(f"/v1/connections/{first['id']}")).status_code == 404


async def test_a_check_says_what_to_do(alice: Person, served: Settings) -> None:
    sandbox = {"host": "127.0.0.1", "port": served.sandbox_smtp_port, "username": str(alice.organization_id)}
    wrong = await create(alice, **sandbox)
    checked = (await alice.client.post(f"/v1/connections/{wrong['id']}/checks")).json()
    assert (checked["ok"], checked["reason"]) == (False, "authentication_failed")
    assert "password" in checked["advice"]
    private = await create(alice, name="Private", host="127.0.0.1", port=1)
    checked = (await alice.client.post(f"/v1/connections/{private['id']}/checks")).json()
    assert (checked["ok"], checked["reason"]) == (False, "address_not_allowed")


async def test_the_sandbox_connection_works_at_once(alice: Person, served: Settings, database: Database) -> None:
    async with database.organization(alice.organization_id) as session:
        identifier = await create_sandbox_connection(session, served, SYSTEM)
    assert (await alice.client.post(f"/v1/connections/{identifier}/checks")).json() == {"ok": True, "reason": None, "advice": None}
    assert (await alice.client.get(f"/v1/connections/{identifier}")).json()["is_default"]


async def sandbox_of_another_port(database: Database, served: Settings, person: Person) -> str:
    """The path of a sandbox connection made while the sandbox listened elsewhere."""
    then = served.model_copy(update={"sandbox_smtp_port": served.sandbox_smtp_port - 1})
    async with database.organization(person.organization_id) as session:
        return f"/v1/connections/{await create_sandbox_connection(session, then, SYSTEM)}"


@pytest.mark.parametrize("mark", ["", "config = config - 'sandbox'"], ids=["marked", "made before there was a mark"])
async def test_the_sandbox_connection_follows_the_sandbox_to_another_port(
    alice: Person, served: Settings, database: Database, mark: str
) -> None:
    path = await sandbox_of_another_port(database, served, alice)
    async with database.organization(alice.organization_id) as session:
        await session.execute(
            text(f"UPDATE connections SET status = 'broken', broken_reason = 'address_not_allowed' {mark and ', ' + mark}")
        )
    shown = (await alice.client.get(path)).json()
    assert (shown["sandbox"], shown["port"]) == (True, served.sandbox_smtp_port)
    assert (await alice.client.post(f"{path}/checks")).json()["ok"]
    assert (await alice.client.get(path)).json()["status"] == "active"
    kept = await alice.client.patch(path, json={"host": shown["host"], "port": shown["port"], "sender_name": "Acme"})
    assert (kept.status_code, kept.json()["sandbox"]) == (200, True)


async def test_a_sandbox_connection_that_is_led_elsewhere_stays_there(alice: Person, served: Settings, database: Database) -> None:
    path = await sandbox_of_another_port(database, served, alice)
    assert (await alice.client.patch(path, json={"host": "smtp.example.com"})).status_code == 422
    moved = (await alice.client.patch(path, json={"host": "smtp.example.com", "port": 587, "password": "x"})).json()
    assert (moved["sandbox"], moved["host"], moved["port"]) == (False, "smtp.example.com", 587)


async def test_nobody_calls_a_server_of_theirs_the_sandbox(alice: Person) -> None:
    assert (await alice.client.post("/v1/connections", json={**SMTP, "sandbox": True})).status_code == 422


async def held_run(database: Database, person: Person) -> str:
    """The path of the connection that a run's message waits for."""
    around = await acme.surround(database, person)
    connection = await create(person, is_default=True)
    journey = await acme.publish(person, around)
    await person.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)})
    async with database.organization(person.organization_id) as session:
        await session.execute(text("UPDATE runs SET status = 'held', reason = 'authentication_failed'"))
    return f"/v1/connections/{connection['id']}"


def words(temporal: FakeTemporal) -> list[Any]:
    return [started.argument for started in temporal.started.values() if started.workflow == "ControlWorkflow"]


async def test_a_change_has_the_runs_that_were_held_ask_again(alice: Person, database: Database, temporal: FakeTemporal) -> None:
    path = await held_run(database, alice)
    assert (await alice.client.patch(path, json={"password": "open barley"})).status_code == 200
    [word] = words(temporal)
    assert (word.kind, word.command, f"/v1/connections/{word.id}", word.actor_id) == ("connection", "resume", path, alice.api_key_id)


async def test_a_check_that_succeeds_has_them_ask_and_one_that_fails_does_not(
    alice: Person, served: Settings, database: Database, temporal: FakeTemporal
) -> None:
    path = await held_run(database, alice)
    password = sandbox_password(served, alice.organization_id)
    account = {"host": served.sandbox_smtp_host, "username": str(alice.organization_id), "password": "wrong"}
    await alice.client.patch(path, json=account)
    temporal.started.clear()
    assert not (await alice.client.post(f"{path}/checks")).json()["ok"]
    assert words(temporal) == []
    await alice.client.patch(path, json={"password": password})
    temporal.started.clear()
    assert (await alice.client.post(f"{path}/checks")).json()["ok"]
    assert [word.command for word in words(temporal)] == ["resume"]


async def test_nobody_is_told_when_nobody_waits(alice: Person, temporal: FakeTemporal) -> None:
    path = f"/v1/connections/{(await create(alice))['id']}"
    await alice.client.patch(path, json={"sender_name": "Acme"})
    assert temporal.started == {}


async def test_while_temporal_is_away_the_change_stands_and_its_repetition_tells(
    alice: Person, database: Database, temporal: FakeTemporal
) -> None:
    path = await held_run(database, alice)
    temporal.away()
    assert (await alice.client.patch(path, json={"sender_name": "Acme"})).status_code == 503
    assert (await alice.client.get(path)).json()["sender_name"] == "Acme"
    temporal.back()
    assert (await alice.client.patch(path, json={"sender_name": "Acme"})).status_code == 200
    assert len(words(temporal)) == 1


async def test_every_change_is_on_record_without_names_or_secrets(alice: Person) -> None:
    created = await create(alice)
    await alice.client.patch(f"/v1/connections/{created['id']}", json={"sender_name": "Ann Example"})
    await alice.client.delete(f"/v1/connections/{created['id']}")
    entries = await alice.client.get("/v1/audit-entries")
    actions = [entry["action"] for entry in entries.json()["items"]]
    assert [a for a in actions if a.startswith("connection.")] == ["connection.created", "connection.changed", "connection.deleted"]
    assert "Ann" not in entries.text and "sesame" not in entries.text and "example.com" not in entries.text


async def test_a_stranger_sees_nothing_and_a_viewer_changes_nothing(alice: Person, bob: Person, charlie: Person) -> None:
    path = f"/v1/connections/{(await create(alice))['id']}"
    assert (await charlie.client.get(path)).status_code == 404
    assert (await charlie.client.patch(path, json={"sender_name": "x"})).status_code == 404
    assert (await charlie.client.post(f"{path}/checks")).status_code == 404
    assert (await charlie.client.delete(path)).status_code == 404
    assert (await bob.client.delete(path)).status_code == 403


async def test_a_connection_stays_while_runs_of_an_archived_journey_send_through_it(
    alice: Person, around: Surroundings, journey: str, database: Database
) -> None:
    """They go on in an archived journey, and would be held for ever."""
    path = f"/v1/connections/{around.connection_id}"
    started = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)})
    assert started.status_code == 201, started.text
    assert "Archive the journey" in (await alice.client.delete(path)).text
    assert (await alice.client.put(f"/v1/journeys/{journey}/archive")).status_code == 200
    refused = await alice.client.delete(path)
    assert refused.status_code == 409 and "Runs of an archived journey" in refused.text
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("UPDATE runs SET status = 'completed', finished_at = now()"))
    assert (await alice.client.delete(path)).status_code == 204
