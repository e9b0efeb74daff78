from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from models.domain.findings import Kind, Severity, Sighting
from models.store import conservation, findings
from models.store.session import Database
from models.tables.base import new_id
from tests.api.conftest import Person, anonymous
from tests.api.rest import acme

LATE = {"since": "2026-11-25T12:00:00+00:00", "task_queue": "journeys"}


def overdue(subject: str = "a", **fields: Any) -> Sighting:
    return Sighting(Kind.OVERDUE_WAKE, "workflow", subject, LATE, runs=3, **fields)


async def see(database: Database, person: Person, *sightings: Sighting, keep: tuple[str, ...] = ()) -> findings.Recorded:
    """A round that looks for overdue wakes and waits."""
    async with database.organization(person.organization_id) as session:
        return await findings.record(session, sightings, [Kind.OVERDUE_WAKE, Kind.WAIT_WITHOUT_EVENT], keep)


async def listed(person: Person, query: str = "") -> list[dict[str, Any]]:
    answer = await person.client.get(f"/v1/findings{query}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_a_finding_says_what_is_wrong_and_what_to_do(database: Database, alice: Person) -> None:
    journey = new_id()
    assert await see(database, alice, overdue(journey_id=journey)) == findings.Recorded(1, 0)
    [found] = await listed(alice)
    assert found["cause"].startswith("3 runs should have gone on since 25 Nov 2026 12:00:00 UTC, and have recorded nothing")
    assert "/pause" in found["action"] and found["severity"] == "problem"
    assert (found["subject"], found["journey_id"], found["runs"]) == ({"kind": "workflow", "id": "a"}, str(journey), 3)
    assert (found["seen"], found["resolved_at"], found["acknowledgement"]) == (1, None, None)
    assert (await alice.client.get(f"/v1/findings/{found['id']}")).json() == found


async def test_one_is_open_until_the_trouble_is_gone_and_a_new_one_opened_when_it_comes_back(database: Database, alice: Person) -> None:
    await see(database, alice, overdue())
    assert await see(database, alice, overdue(), overdue("b")) == findings.Recorded(1, 0)
    assert await see(database, alice, keep=("b",)) == findings.Recorded(0, 1)  # b was not looked at
    first, second = await listed(alice)
    assert (first["subject"]["id"], first["seen"], first["resolved_at"] is not None) == ("a", 2, True)
    assert (second["subject"]["id"], second["resolved_at"]) == ("b", None)
    assert await see(database, alice, overdue(), overdue("b")) == findings.Recorded(1, 0)
    assert len(await listed(alice)) == 3
    assert await acme.actions(alice, database, first["id"]) == ["finding.opened", "finding.resolved"]
    assert await acme.actions(alice, database, second["id"]) == ["finding.opened"]


async def test_a_round_that_looks_for_one_kind_resolves_no_other(database: Database, alice: Person) -> None:
    await see(database, alice, Sighting(Kind.CONSERVATION, "organization", str(alice.organization_id)))
    await see(database, alice)
    assert [found["resolved_at"] for found in await listed(alice)] == [None]


async def test_the_filters(database: Database, alice: Person) -> None:
    journey = new_id()
    await see(database, alice, overdue("gone"))
    await see(
        database,
        alice,
        overdue("here", journey_id=journey),
        Sighting(Kind.WAIT_WITHOUT_EVENT, "step", "s", {}, severity=Severity.SUSPICION),
    )

    async def subjects(query: str) -> list[str]:
        return [found["subject"]["id"] for found in await listed(alice, query)]

    assert sorted(await subjects("?open=true")) == ["here", "s"]
    assert await subjects("?open=false") == ["gone"]
    assert await subjects("?kind=wait_without_event") == ["s"]
    assert await subjects(f"?journey_id={journey}") == ["here"]
    assert await subjects("?subject_id=gone") == ["gone"]
    assert (await alice.client.get("/v1/findings?kind=nonsense")).status_code == 422


async def test_pages(database: Database, alice: Person) -> None:
    await see(database, alice, *(overdue(str(number)) for number in range(3)))
    first = (await alice.client.get("/v1/findings?limit=2")).json()
    second = (await alice.client.get(f"/v1/findings?limit=2&cursor={first['next_cursor']}")).json()
    assert (len(first["items"]), len(second["items"]), second["next_cursor"]) == (2, 1, None)


async def test_an_acknowledgement_stays_with_the_finding_and_is_on_record(database: Database, alice: Person) -> None:
    await see(database, alice, overdue())
    [found] = await listed(alice)
    path = f"/v1/findings/{found['id']}/acknowledgement"
    for _ in range(2):
        answer = await alice.client.put(path, json={"reason": "the shop is closed"})
        assert answer.status_code == 200, answer.text
    said = answer.json()["acknowledgement"]
    assert (said["reason"], said["by"], said["by_kind"]) == ("the shop is closed", str(alice.api_key_id), "api_key")
    await see(database, alice, overdue())
    [again] = await listed(alice, "?open=true")
    assert again["acknowledgement"] == said and again["seen"] == 2
    assert await acme.actions(alice, database, found["id"]) == ["finding.opened", "finding.acknowledged"]


async def test_what_is_resolved_needs_no_acknowledgement(database: Database, alice: Person) -> None:
    await see(database, alice, overdue())
    await see(database, alice)
    [found] = await listed(alice)
    answer = await alice.client.put(f"/v1/findings/{found['id']}/acknowledgement", json={"reason": "late"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x" * 201}, {"reason": "x", "other": 1}])
async def test_an_acknowledgement_needs_a_reason(database: Database, alice: Person, body: Any) -> None:
    await see(database, alice, overdue())
    [found] = await listed(alice)
    answer = await alice.client.put(f"/v1/findings/{found['id']}/acknowledgement", json=body)
    assert answer.status_code == 422 and answer.json()["errors"][0]["path"]


async def test_they_need_a_login_and_are_nobody_elses(database: Database, alice: Person, charlie: Person, app: Any) -> None:
    await see(database, alice, overdue())
    [found] = await listed(alice)
    async with anonymous(app) as nobody:
        for path in ("/v1/findings", f"/v1/findings/{found['id']}", "/v1/conservation"):
            assert (await nobody.get(path)).status_code == 401
    assert await listed(charlie) == []
    assert (await charlie.client.get(f"/v1/findings/{found['id']}")).status_code == 404
    assert (await charlie.client.put(f"/v1/findings/{found['id']}/acknowledgement", json={"reason": "x"})).status_code == 404


async def test_conservation_counts_both_sides_now(database: Database, alice: Person) -> None:
    around = await acme.surround(database, alice)
    journey = await acme.publish(alice, around)
    before = (await alice.client.get("/v1/conservation")).json()
    assert (before["entered"], before["present"], before["holds"], before["workflows_checked_at"]) == (0, 0, True, None)
    answer = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)})
    assert answer.status_code == 201, answer.text
    now = (await alice.client.get("/v1/conservation")).json()
    assert (now["by_others"], now["runs"]["active"], now["difference"], now["holds"]) == (1, 1, 0, True)
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("DELETE FROM runs WHERE id = :id"), {"id": answer.json()["id"]})
    lost = (await alice.client.get("/v1/conservation")).json()
    assert (lost["entered"], lost["present"], lost["difference"], lost["holds"]) == (1, 0, 1, False)


async def test_counting_that_takes_too_long_is_given_up_with_a_way_out(
    database: Database, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.organization(alice.organization_id) as session:
        await session.execute(text("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE"))
        with monkeypatch.context() as hasty:
            hasty.setattr(conservation, "LOOK", timedelta(milliseconds=200))
            answer = await alice.client.get("/v1/conservation")
    assert (answer.status_code, answer.json()["code"], "Retry-After" in answer.headers) == (503, "unavailable", True)
    assert "/v1/findings?kind=conservation" in answer.json()["detail"]
    assert (await alice.client.get("/v1/conservation")).status_code == 200
