from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from httpx2 import AsyncClient

from models.domain.audit import SYSTEM
from models.store import transitions
from models.store.session import Database
from models.store.transitions import NewTransition
from tests.api.conftest import Person
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


async def failing(person: Person, database: Database, around: Surroundings, journey: str, reason: str, sequence: int = 1) -> str:
    """The id of a run that parked."""
    body = {"contact_id": str(around.contact_id)}
    run_id: str = (await person.client.post(f"/v1/journeys/{journey}/runs", json=body)).json()["id"]
    happened = NewTransition(
        UUID(run_id), sequence, "parked", "needs_attention", NOON.replace(second=sequence), "welcome", 1, None, reason, SYSTEM, {}
    )
    async with database.organization(person.organization_id) as session:
        await transitions.record(session, UUID(journey), [happened])
    return run_id


async def failures(person: Person, **query: Any) -> list[dict[str, Any]]:
    answer = await person.client.get("/v1/failures", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def test_runs_are_grouped_by_cause_with_words_and_advice(
    alice: Person, database: Database, around: Surroundings, journey: str
) -> None:
    first = await failing(alice, database, around, journey, "missing_value:contact.first_name")
    second = await failing(alice, database, around, journey, "missing_value:contact.first_name", 5)
    third = await failing(alice, database, around, journey, "gave_up:connect_421")
    data, outage = await failures(alice)
    assert (data["failure_class"], data["runs"], data["seen"], data["versions"]) == ("data", 2, 2, [1])
    assert (data["step_id"], data["journey_id"], data["sample_run_id"]) == ("welcome", journey, second)
    assert data["words"] == "the template prints contact.first_name, which this contact does not have"
    assert (data["first_seen_at"], data["last_seen_at"]) == ("2026-11-23T12:00:01Z", "2026-11-23T12:00:05Z")
    assert data["meaning"] and data["advice"]
    assert (outage["failure_class"], outage["provider_code"], outage["sample_run_id"]) == ("provider_outage", "421", third)
    run = (await alice.client.get(f"/v1/runs/{first}")).json()
    assert (run["failure_class"], run["failure_fingerprint"]) == ("data", data["fingerprint"])
    for query in ({"failure_class": "data"}, {"failure_fingerprint": data["fingerprint"]}):
        found = (await alice.client.get("/v1/runs", params=query)).json()["items"]
        assert [each["id"] for each in found] == [first, second]


async def test_failures_are_filtered_and_paged(alice: Person, database: Database, around: Surroundings, journey: str) -> None:
    other = await acme.publish(alice, around, "Another")
    for each, reason in ((journey, "policy_refused"), (journey, "attempt_lost"), (other, "policy_refused")):
        await failing(alice, database, around, each, reason)
    assert [each["failure_class"] for each in await failures(alice, journey_id=journey)] == ["content", "uncertain_outcome"]
    assert {each["journey_id"] for each in await failures(alice, failure_class="content")} == {journey, other}
    assert await failures(alice, campaign_id=journey) == []
    first = (await alice.client.get("/v1/failures", params={"limit": 2})).json()
    rest = (await alice.client.get("/v1/failures", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    assert (await alice.client.get("/v1/failures", params={"failure_class": "bad_luck"})).status_code == 422


async def test_a_cause_without_runs_is_history(alice: Person, database: Database, around: Surroundings, journey: str) -> None:
    run_id = await failing(alice, database, around, journey, "policy_refused")
    retried = NewTransition(UUID(run_id), 2, "retried", "active", NOON, "welcome", 1, None, None, SYSTEM, {})
    async with database.organization(alice.organization_id) as session:
        await transitions.record(session, UUID(journey), [retried])
    assert await failures(alice) == []
    [past] = await failures(alice, present="false")
    assert (past["runs"], past["seen"], past["versions"], past["sample_run_id"]) == (0, 1, [], None)


async def test_a_run_that_has_been_replayed_stands_there_no_longer(
    alice: Person, database: Database, around: Surroundings, journey: str
) -> None:
    run_id = await failing(alice, database, around, journey, "gave_up:timed_out")
    answer = await alice.client.post(f"/v1/runs/{run_id}/replays", json={"reason": "the provider is back"})
    assert answer.status_code == 201, answer.text
    assert await failures(alice) == []
    assert (await alice.client.get("/v1/runs?failure_class=provider_outage")).json()["items"] == []
    old = (await alice.client.get(f"/v1/runs/{run_id}")).json()
    assert [old[name] for name in ("status", "reason", "failure_class", "failure_fingerprint", "failed_at")] == [
        "exited",
        "replayed",
        None,
        None,
        None,
    ]


async def test_the_runs_of_one_cause_can_be_retried_together(alice: Person, database: Database, around: Surroundings, journey: str) -> None:
    outage = await failing(alice, database, around, journey, "gave_up:timed_out")
    await failing(alice, database, around, journey, "content_refused")
    [found] = await failures(alice, failure_class="provider_outage")
    for chosen in ({"failure_fingerprints": [found["fingerprint"]]}, {"failure_classes": ["provider_outage"]}):
        body = {"command": "retry", "filter": chosen}
        preview = (await alice.client.post("/v1/run-operations/previews", json=body)).json()
        assert (preview["runs"], preview["preview"]["fitting"]) == (1, 1)
    done = await alice.client.post("/v1/run-operations", json={"preview_id": preview["id"], "reason": "the provider is back"})
    assert done.status_code == 202, done.text
    items = (await alice.client.get(f"/v1/run-operations/{preview['id']}/items")).json()["items"]
    assert [item["run_id"] for item in items] == [outage]


async def test_failures_need_a_login_and_strangers_see_none(
    alice: Person, charlie: Person, client: AsyncClient, database: Database, around: Surroundings, journey: str
) -> None:
    await failing(alice, database, around, journey, "policy_refused")
    assert (await client.get("/v1/failures")).status_code == 401
    for query in ({}, {"journey_id": journey}, {"present": "false"}):
        assert await failures(charlie, **query) == []
