import json
from datetime import UTC, datetime, timedelta
from typing import Any

from models.checkpoints import is_signed
from models.domain.audit import Actor, NewEntry
from models.domain.audit_verification import verify, vouched_hashes
from models.store import audit
from models.store.session import Database
from tests.api.conftest import Person

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


async def record(database: Database, person: Person, count: int, **fields: Any) -> None:
    entries = []
    for n in range(1, count + 1):
        values: dict[str, Any] = {"action": "run.paused", "subject_kind": "run", "subject_id": f"r{n}"}
        entries.append(NewEntry(**values | {"occurred_at": NOON + timedelta(hours=n)} | fields))
    async with database.organization(person.organization_id) as session:
        await audit.append(session, entries)


async def sequences(person: Person, **query: Any) -> list[int]:
    answer = await person.client.get("/v1/audit-entries", params=query)
    assert answer.status_code == 200, answer.text
    return [entry["sequence"] for entry in answer.json()["items"]]


async def test_an_entry_shows_who_did_what_to_what(database: Database, alice: Person) -> None:
    await record(database, alice, 1, actor=Actor("api_key", alice.api_key_id), details={"reason": "asked"})
    entry = (await alice.client.get("/v1/audit-entries")).json()["items"][0]
    assert (entry["actor"], entry["subject"]) == ({"kind": "api_key", "id": str(alice.api_key_id)}, {"kind": "run", "id": "r1"})
    assert (entry["action"], entry["details"], entry["occurred_at"]) == ("run.paused", {"reason": "asked"}, "2026-11-23T13:00:00Z")
    assert (entry["previous_hash"], len(entry["hash"])) == ("00" * 32, 64)


async def test_filters_narrow_the_record(database: Database, alice: Person) -> None:
    await record(database, alice, 3)
    await record(database, alice, 2, action="campaign.paused", subject_kind="campaign", actor=Actor("user", alice.user_id))
    assert await sequences(alice, action="campaign.paused") == [4, 5]
    assert await sequences(alice, subject_kind="run") == [1, 2, 3]
    assert await sequences(alice, subject_kind="run", subject_id="r2") == [2]
    assert await sequences(alice, actor_id=str(alice.user_id)) == [4, 5]
    since, until = (NOON + timedelta(hours=2)).isoformat(), (NOON + timedelta(hours=3)).isoformat()
    assert await sequences(alice, since=since) == [2, 3, 5]
    assert await sequences(alice, since=since, until=until) == [2, 5]


async def test_pages_follow_the_chain_in_either_direction(database: Database, alice: Person) -> None:
    await record(database, alice, 7)
    for newest_first, expected in ((False, [1, 2, 3, 4, 5, 6, 7]), (True, [7, 6, 5, 4, 3, 2, 1])):
        found: list[int] = []
        query: dict[str, Any] = {"limit": 3, "newest_first": newest_first}
        while True:
            page = (await alice.client.get("/v1/audit-entries", params=query)).json()
            found += [entry["sequence"] for entry in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert found == expected


async def test_the_export_verifies_with_the_key_that_the_checkpoint_shows(database: Database, alice: Person) -> None:
    await record(database, alice, 250)
    checkpoint = (await alice.client.get("/v1/audit-entries/checkpoint")).json()
    key = bytes.fromhex(checkpoint["public_key"])
    await record(database, alice, 5)
    answer = await alice.client.get("/v1/audit-entries/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    earlier = vouched_hashes([json.dumps(checkpoint)], is_signed, key)
    assert list(earlier) == [250]
    result = verify(answer.text.splitlines(), is_signed, key, earlier)
    assert (result.ok, result.entries, result.pinned, result.findings) == (True, 255, True, ())


async def test_a_record_rewritten_in_the_database_does_not_go_through_an_earlier_checkpoint(
    database: Database, alice: Person, postgres: Any
) -> None:
    """What somebody with every right on the database can do: recompute the whole chain. Only a kept checkpoint shows it."""
    import psycopg

    await record(database, alice, 3)
    checkpoint = (await alice.client.get("/v1/audit-entries/checkpoint")).json()
    async with await psycopg.AsyncConnection.connect(postgres.url) as owner:
        await owner.execute("SET LOCAL session_replication_role = replica")
        await owner.execute("DELETE FROM audit_entries WHERE organization_id = %s", (alice.organization_id,))
        await owner.execute("DELETE FROM audit_heads WHERE organization_id = %s", (alice.organization_id,))
    await record(database, alice, 3, action="run.resumed")
    lines = (await alice.client.get("/v1/audit-entries/export")).text.splitlines()
    assert verify(lines, is_signed).ok
    result = verify(lines, is_signed, earlier=vouched_hashes([json.dumps(checkpoint)], is_signed))
    assert [(finding.kind, finding.sequence) for finding in result.findings] == [("rewritten", 3)]


async def test_an_empty_record_exports_and_verifies(alice: Person) -> None:
    lines = (await alice.client.get("/v1/audit-entries/export")).text.splitlines()
    assert verify(lines, is_signed).ok
    assert len(lines) == 2


async def test_a_viewer_does_not_read_the_record(bob: Person) -> None:
    for path in ("/v1/audit-entries", "/v1/audit-entries/checkpoint", "/v1/audit-entries/export"):
        assert (await bob.client.get(path)).status_code == 403
