import hashlib
import zlib
from typing import Any
from uuid import UUID

import pytest_asyncio
from sqlalchemy import text

from models.store import histories
from models.store.histories import NewHistory
from models.store.session import Database
from models.tables.base import utc_now
from tests.api.conftest import Person, anonymous
from tests.api.rest import acme

DOCUMENT = b'{"events": []}'


def history(workflow_id: str, temporal_run_id: str = "1") -> NewHistory:
    sha256 = hashlib.sha256(DOCUMENT).hexdigest()
    return NewHistory(workflow_id, temporal_run_id, "terminated", utc_now(), utc_now(), 0, len(DOCUMENT), sha256, zlib.compress(DOCUMENT))


@pytest_asyncio.fixture(loop_scope="session")
async def run(database: Database, alice: Person) -> dict[str, Any]:
    around = await acme.surround(database, alice)
    journey = await acme.publish(alice, around)
    answer = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)})
    return dict(answer.json())


async def store(database: Database, organization_id: UUID, *new: NewHistory) -> int:
    async with database.organization(organization_id) as session:
        return await histories.store(session, new)


async def test_a_history_is_stored_once_listed_and_downloaded(database: Database, alice: Person, run: dict[str, Any]) -> None:
    name = run["workflow_id"]
    assert await store(database, alice.organization_id, history(name), history(name, "2"), history("another")) == 3
    assert await store(database, alice.organization_id, history(name)) == 0
    found = (await alice.client.get(f"/v1/runs/{run['id']}/histories")).json()["items"]
    assert [(each["temporal_run_id"], each["status"]) for each in found] == [("1", "terminated"), ("2", "terminated")]
    answer = await alice.client.get(f"/v1/runs/{run['id']}/histories/{found[0]['id']}")
    assert (answer.content, answer.headers["content-type"]) == (DOCUMENT, "application/json")
    assert answer.headers["ETag"] == f'"{hashlib.sha256(DOCUMENT).hexdigest()}"' and "attachment" in answer.headers["Content-Disposition"]
    entries = (await alice.client.get("/v1/audit-entries?action=history.archived")).json()["items"]
    assert [entry["details"]["sha256"] for entry in entries] == [found[0]["sha256"]] * 3


async def test_a_history_that_is_known_is_not_downloaded_again(
    database: Database, alice: Person, charlie: Person, run: dict[str, Any]
) -> None:
    await store(database, alice.organization_id, history(run["workflow_id"]))
    [found] = (await alice.client.get(f"/v1/runs/{run['id']}/histories")).json()["items"]
    path, tag = f"/v1/runs/{run['id']}/histories/{found['id']}", f'"{found["sha256"]}"'
    for known in (tag, f"W/{tag}", f'"another", {tag}', "*"):
        answer = await alice.client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    changed = await alice.client.get(path, headers={"If-None-Match": '"another"'})
    assert (changed.status_code, changed.content) == (200, DOCUMENT)
    assert (await charlie.client.get(path, headers={"If-None-Match": tag})).status_code == 404


async def test_the_history_of_a_workflow_that_did_not_carry_the_run_is_not_its(database: Database, alice: Person, run: Any) -> None:
    await store(database, alice.organization_id, history(run["workflow_id"]), history("another"))
    assert len((await alice.client.get(f"/v1/runs/{run['id']}/histories")).json()["items"]) == 1
    async with database.organization(alice.organization_id) as session:
        query = text("SELECT id FROM workflow_histories WHERE workflow_id = 'another'")
        other = (await session.execute(query)).scalars().first()
    answer = await alice.client.get(f"/v1/runs/{run['id']}/histories/{other}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_download_needs_the_right_to_read_the_audit_record(
    app: Any, database: Database, alice: Person, bob: Person, charlie: Person, run: Any
) -> None:
    await store(database, alice.organization_id, history(run["workflow_id"]))
    path = f"/v1/runs/{run['id']}/histories"
    [found] = (await alice.client.get(path)).json()["items"]
    async with anonymous(app) as nobody:
        assert {(await nobody.get(each)).status_code for each in (path, f"{path}/{found['id']}")} == {401}
    assert {(await charlie.client.get(each)).status_code for each in (path, f"{path}/{found['id']}")} == {404}
    assert [(await bob.client.get(each)).status_code for each in (path, f"{path}/{found['id']}")] == [200, 403]
