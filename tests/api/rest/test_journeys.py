import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlmodel import col
from temporalio.client import Client

from api.dependencies import Services
from models.store import controls
from models.store.session import Database
from models.tables.journeys import Journey
from tests.api.conftest import Person
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings, actions
from tests.api.rest.fake_temporal import FakeTemporal, nothing
from tests.api.rest.test_runs import deliver


async def create(person: Person, draft: object, name: str = "Welcome") -> str:
    created = await person.client.post("/v1/journeys", json={"name": name, "draft": draft})
    assert created.status_code == 201, created.text
    return str(created.json()["id"])


async def test_a_draft_need_not_be_a_journey_yet(alice: Person, database: Database) -> None:
    created = await alice.client.post("/v1/journeys", json={"name": "Later", "draft": {"idea": ["a mail", {"b": None}]}})
    assert created.status_code == 201
    assert created.headers["ETag"] == '"1"'
    read = await alice.client.get(created.headers["Location"])
    assert read.json()["draft"] == {"idea": ["a mail", {"b": None}]}
    check = (await alice.client.get(created.headers["Location"] + "/check")).json()
    assert {problem["path"] for problem in check["problems"]} == {"start", "steps", "idea"}
    assert await actions(alice, database, created.json()["id"]) == ["journey.created"]


async def test_a_name_is_taken_once(alice: Person) -> None:
    await create(alice, {})
    again = await alice.client.post("/v1/journeys", json={"name": "Welcome"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"name": "x", "draft": []},
        {"name": "x", "draft": {"a": "x" * 300_000}},
        {"name": "x", "draft": {"a": "\x00"}},
        {"name": "x", "nmae": "y"},
    ],
)
async def test_what_cannot_be_a_draft_is_refused(alice: Person, body: dict[str, object]) -> None:
    assert (await alice.client.post("/v1/journeys", json=body)).status_code == 422


async def test_the_second_save_of_two_editors_is_refused_and_loses_nothing(alice: Person) -> None:
    journey = await create(alice, {"v": 1})
    first = await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": {"v": 2}}, headers={"If-Match": '"1"'})
    assert (first.status_code, first.headers["ETag"], first.json()["draft"]) == (200, '"2"', {"v": 2})
    second = await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": {"v": 3}}, headers={"If-Match": '"1"'})
    assert (second.status_code, second.json()["code"]) == (412, "stale_revision")
    blind = await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": {"v": 3}})
    assert blind.status_code == 412
    assert (await alice.client.get(f"/v1/journeys/{journey}")).json()["draft"] == {"v": 2}


async def test_saving_only_the_name_keeps_the_draft(alice: Person) -> None:
    journey = await create(alice, {"v": 1})
    await create(alice, {}, "Taken")
    renamed = await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"name": "Hello"}, headers={"If-Match": '"1"'})
    assert (renamed.json()["name"], renamed.json()["draft"]) == ("Hello", {"v": 1})
    taken = await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"name": "Taken"}, headers={"If-Match": '"2"'})
    assert taken.status_code == 409


async def test_publishing_freezes_what_the_draft_names(alice: Person, around: Surroundings, database: Database) -> None:
    journey = await create(alice, around.welcome())
    assert (await alice.client.get(f"/v1/journeys/{journey}/check")).json() == {"revision": 1, "problems": []}
    published = await alice.client.post(f"/v1/journeys/{journey}/versions", headers={"If-Match": '"1"'})
    assert published.status_code == 201
    version = published.json()
    step = version["definition"]["steps"]["welcome"]
    assert version["number"] == 1
    assert step["template_version_id"] == str(around.template_version_id)
    assert step["connection_id"] == str(around.connection_id)
    by_number = await alice.client.get(f"/v1/journeys/{journey}/versions/1")
    by_id = await alice.client.get(f"/v1/journeys/{journey}/versions/{version['id']}")
    assert by_number.json() == by_id.json() == version
    assert (await alice.client.get(f"/v1/journeys/{journey}")).json()["newest_version"] == 1
    assert await actions(alice, database, journey) == ["journey.created", "journey.published"]


async def test_publishing_the_same_again_gives_the_same_version(alice: Person, around: Surroundings) -> None:
    journey = await acme.publish(alice, around)
    again = await alice.client.post(f"/v1/journeys/{journey}/versions")
    assert (again.status_code, again.json()["number"]) == (200, 1)


async def test_a_new_template_version_makes_a_new_version_of_the_journey(alice: Person, around: Surroundings, database: Database) -> None:
    journey = await acme.publish(alice, around)
    async with database.organization(alice.organization_id) as session:
        newer = await acme.add_version(session, alice.organization_id, around.template_id, 2, "Hello again")
    second = await alice.client.post(f"/v1/journeys/{journey}/versions")
    assert (second.status_code, second.json()["number"]) == (201, 2)
    assert second.json()["definition"]["steps"]["welcome"]["template_version_id"] == str(newer)
    listed = (await alice.client.get(f"/v1/journeys/{journey}/versions")).json()["items"]
    assert [version["number"] for version in listed] == [1, 2]
    assert listed[0]["content_hash"] != listed[1]["content_hash"]
    first = (await alice.client.get(f"/v1/journeys/{journey}/versions/1")).json()
    assert first["definition"]["steps"]["welcome"]["template_version_id"] == str(around.template_version_id)


async def test_publishing_at_the_same_time_makes_one_version(alice: Person, around: Surroundings) -> None:
    journey = await create(alice, around.welcome())
    answers = await asyncio.gather(*(alice.client.post(f"/v1/journeys/{journey}/versions") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert {answer.json()["number"] for answer in answers} == {1}


async def test_publishing_and_saving_at_the_same_time_numbers_without_gaps(alice: Person, around: Surroundings) -> None:
    journey = await create(alice, around.welcome())

    async def publish(name: str) -> int:
        revision = (await alice.client.get(f"/v1/journeys/{journey}")).headers["ETag"]
        await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": around.welcome(name=name)}, headers={"If-Match": revision})
        return (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code

    statuses = await asyncio.gather(*(publish(f"Mail {n}") for n in range(4)))
    numbers = [version["number"] for version in (await alice.client.get(f"/v1/journeys/{journey}/versions")).json()["items"]]
    assert set(statuses) <= {200, 201}
    assert numbers == list(range(1, statuses.count(201) + 1))


async def test_an_unpublishable_draft_is_refused_with_every_problem(alice: Person, around: Surroundings) -> None:
    journey = await create(alice, around.welcome(topic_id=None, channel="sms"))
    refused = await alice.client.post(f"/v1/journeys/{journey}/versions")
    assert (refused.status_code, refused.json()["code"]) == (422, "unpublishable")
    found = {(error["path"], error["code"]) for error in refused.json()["errors"]}
    assert found == {
        ("steps.welcome.template_id", "wrong_channel"),
        ("steps.welcome.topic_id", "required"),
        ("steps.welcome.connection_id", "no_connection"),
    }
    assert (await alice.client.get(f"/v1/journeys/{journey}/versions")).json()["items"] == []


async def test_journeys_that_lead_into_each_other_without_a_wait_are_not_published(alice: Person) -> None:
    async def save(journey: str, revision: int, entry: dict[str, object], **steps: object) -> list[tuple[str, str]]:
        draft = {"start": next(iter(steps)), "steps": steps, "entry": entry}
        headers = {"If-Match": f'"{revision}"'}
        assert (await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": draft}, headers=headers)).is_success
        answer = await alice.client.post(f"/v1/journeys/{journey}/versions")
        assert answer.is_success or answer.status_code == 422, answer.text
        return [] if answer.is_success else [(error["path"], error["code"]) for error in answer.json()["errors"]]

    leave: dict[str, object] = {"x": {"kind": "exit", "reason": "x"}}
    first, second, third = [await create(alice, {"start": "x", "steps": leave}, name) for name in ("first", "second", "third")]
    for journey in (first, second, third):
        assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).is_success
    lead = {journey: {"kind": "enter_journey", "journey_id": journey} for journey in (first, second, third)}
    wait = {"kind": "wait", "duration": "PT1H", "next": "y"}
    assert await save(second, 1, {}, x={"kind": "branch", "conditions": [{"when": {"tag": "a"}, "next": "y"}]}, y=lead[third]) == []
    assert await save(third, 1, {}, x=lead[first]) == []
    assert await save(first, 1, {}, y={**lead[second], "next": "z"}, z={"kind": "exit"}) == [
        ("steps.y.journey_id", "loop_through_journeys")
    ]
    bounded: list[dict[str, object]] = [{"again": "once"}, {"cool_down": "P1D"}, {"maximum": 3}]
    for revision, rules in enumerate(bounded, start=2):
        assert await save(first, revision, rules, y=lead[second]) == []
    assert await save(first, 5, {}, x=wait, y=lead[second]) == []
    assert await save(third, 2, {}, x=wait, y=lead[first]) == []
    assert await save(first, 6, {}, y=lead[second]) == []


async def test_publishing_a_revision_that_is_not_the_newest_is_refused(alice: Person, around: Surroundings) -> None:
    journey = await create(alice, around.welcome())
    refused = await alice.client.post(f"/v1/journeys/{journey}/versions", headers={"If-Match": '"7"'})
    assert refused.status_code == 412
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions", headers={"If-Match": "soon"})).status_code == 422


async def test_another_organizations_things_cannot_be_named(
    alice: Person, charlie: Person, around: Surroundings, database: Database
) -> None:
    await acme.surround(database, charlie)
    journey = await create(charlie, around.welcome())
    problems = (await charlie.client.get(f"/v1/journeys/{journey}/check")).json()["problems"]
    assert {problem["code"] for problem in problems} == {"unknown_template", "unknown_topic"}


async def test_pausing_stands_at_once_and_tells_the_runs(
    alice: Person, around: Surroundings, temporal: FakeTemporal, database: Database
) -> None:
    journey = await acme.publish(alice, around)
    paused = await alice.client.put(f"/v1/journeys/{journey}/pause", json={"reason": "wrong price"})
    assert paused.status_code == 202
    assert paused.json()["paused_at"] is not None
    [(name, started)] = temporal.started.items()
    assert name.startswith(f"{alice.organization_id}/control/journey/{journey}/")
    assert (started.workflow, started.argument.command, started.argument.actor_id) == ("ControlWorkflow", "pause", alice.api_key_id)
    again = await alice.client.put(f"/v1/journeys/{journey}/pause")
    assert again.json()["paused_at"] == paused.json()["paused_at"]
    assert (await actions(alice, database, journey)).count("journey.paused") == 1
    assert await acme.reasons(alice, database, journey, "journey.paused") == ["wrong price"]


async def test_resuming_is_left_to_the_workflow(alice: Person, around: Surroundings, temporal: FakeTemporal, database: Database) -> None:
    journey = await acme.publish(alice, around)
    assert (await alice.client.delete(f"/v1/journeys/{journey}/pause")).status_code == 202
    assert temporal.started == {}  # nothing to resume
    await alice.client.put(f"/v1/journeys/{journey}/pause")
    why = {"reason": "price corrected"}
    resumed = await alice.client.delete(f"/v1/journeys/{journey}/pause", params=why, headers={"Idempotency-Key": "k1"})
    assert resumed.status_code == 202
    assert resumed.json()["paused_at"] is not None
    said = [(started.argument.command, started.argument.reason) for started in temporal.started.values()]
    assert said == [("pause", None), ("resume", "price corrected")]
    assert await acme.reasons(alice, database, journey, "journey.resume_requested") == ["price corrected"]
    await alice.client.delete(f"/v1/journeys/{journey}/pause", headers={"Idempotency-Key": "k1"})
    assert len(temporal.started) == 2


async def test_a_pause_holds_even_when_temporal_is_away(alice: Person, around: Surroundings, temporal: FakeTemporal) -> None:
    journey = await acme.publish(alice, around)
    temporal.away()
    answer = await alice.client.put(f"/v1/journeys/{journey}/pause")
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert (await alice.client.get(f"/v1/journeys/{journey}")).json()["paused_at"] is not None
    temporal.back()
    assert (await alice.client.put(f"/v1/journeys/{journey}/pause")).status_code == 202
    assert len(temporal.started) == 1


async def test_cancelling_ends_the_campaigns_tells_the_runs_and_leaves_the_journey_open(
    alice: Person, around: Surroundings, temporal: FakeTemporal, database: Database
) -> None:
    journey = await acme.publish(alice, around)
    campaign = (await alice.client.post("/v1/campaigns", json={"name": "News", "journey_id": journey})).json()["id"]
    temporal.started.clear()
    for _ in range(2):
        cancelled = await alice.client.put(f"/v1/journeys/{journey}/cancellation", json={"reason": "wrong price"})
        assert (cancelled.status_code, cancelled.json()["paused_at"], cancelled.json()["archived_at"]) == (202, None, None)
    assert {started.workflow for started in temporal.started.values()} == {"ControlWorkflow"}
    words = [started.argument for started in temporal.started.values()]  # both: somebody may have entered in between
    assert [(word.kind, word.command, word.reason, word.actor_id) for word in words] == [
        ("journey", "cancel", "wrong price", alice.api_key_id)
    ] * 2
    assert (await alice.client.get(f"/v1/campaigns/{campaign}")).json()["status"] == "cancelled"
    assert await actions(alice, database, campaign) == ["campaign.launched", "campaign.cancelled"]
    assert (await actions(alice, database, journey))[-2:] == ["journey.cancellation_requested"] * 2
    entered = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)})
    assert entered.status_code == 201
    assert not temporal.started[entered.json()["workflow_id"]].argument.cancelled


async def cancelled_until(database: Database, person: Person, journey: str) -> datetime:
    async with database.organization(person.organization_id) as session:
        found = (await session.execute(select(col(Journey.runs_cancelled_at)).where(col(Journey.id) == UUID(journey)))).scalar_one()
    assert found is not None
    return found


async def test_the_same_cancellation_said_again_is_about_none_who_came_after_it(
    alice: Person, around: Surroundings, temporal: FakeTemporal, database: Database
) -> None:
    journey = await acme.publish(alice, around)
    once = {"Idempotency-Key": "stop"}
    start = {"contact_id": str(around.contact_id)}
    before = (await alice.client.post(f"/v1/journeys/{journey}/runs", json=start)).json()["workflow_id"]
    assert (await alice.client.put(f"/v1/journeys/{journey}/cancellation", headers=once)).status_code == 202
    first = await cancelled_until(database, alice, journey)
    after = (await alice.client.post(f"/v1/journeys/{journey}/runs", json=start)).json()["workflow_id"]
    async with database.organization(alice.organization_id) as session:
        told = await controls.concerned_workflows(session, "journey", UUID(journey), None, 10, "cancel")
        everybody = await controls.concerned_workflows(session, "journey", UUID(journey), None, 10, "pause")
    assert told == [before] and everybody == sorted([before, after])
    assert (await alice.client.put(f"/v1/journeys/{journey}/cancellation", headers=once)).status_code == 202
    assert await cancelled_until(database, alice, journey) == first
    assert (await alice.client.put(f"/v1/journeys/{journey}/cancellation")).status_code == 202
    assert await cancelled_until(database, alice, journey) > first


async def test_a_cancellation_that_comes_while_a_runs_workflow_starts_is_left_to_the_outbox_to_tell(
    alice: Person, around: Surroundings, temporal: FakeTemporal, services: Services
) -> None:
    journey = await acme.publish(alice, around)

    async def cancel() -> None:
        temporal.meanwhile = nothing
        assert (await alice.client.put(f"/v1/journeys/{journey}/cancellation")).status_code == 202

    temporal.meanwhile = cancel
    run = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)})
    name = run.json()["workflow_id"]
    assert not temporal.started[name].argument.cancelled
    await deliver(services, alice)
    told = [(who, word.command, word.kind) for who, _, word in temporal.signalled]
    assert told == [(name, "cancel", "journey")]  # all there is to say


async def test_the_same_cancellation_is_said_once(alice: Person, around: Surroundings, temporal: FakeTemporal) -> None:
    journey = await acme.publish(alice, around)
    for _ in range(2):
        answer = await alice.client.put(f"/v1/journeys/{journey}/cancellation", headers={"Idempotency-Key": "stop"})
        assert answer.status_code == 202
    assert len(temporal.started) == 1


async def test_a_run_that_was_cancelled_before_its_workflow_could_start_never_sends(
    alice: Person, around: Surroundings, temporal: FakeTemporal
) -> None:
    journey = await acme.publish(alice, around)
    path, body, once = f"/v1/journeys/{journey}/runs", {"contact_id": str(around.contact_id)}, {"Idempotency-Key": "once"}
    temporal.away()
    assert (await alice.client.post(path, json=body, headers=once)).status_code == 503
    temporal.back()
    assert (await alice.client.put(f"/v1/journeys/{journey}/cancellation")).status_code == 202
    assert (await alice.client.post(path, json=body, headers=once)).status_code == 201
    [given] = [started.argument for started in temporal.started.values() if started.workflow == "JourneyWorkflow"]
    assert given.cancelled


async def test_an_archived_journey_takes_nothing_new(alice: Person, around: Surroundings) -> None:
    journey = await acme.publish(alice, around)
    assert (await alice.client.put(f"/v1/journeys/{journey}/archive")).json()["archived_at"] is not None
    run = await alice.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)})
    campaign = await alice.client.post("/v1/campaigns", json={"name": "News", "journey_id": journey})
    version = await alice.client.post(f"/v1/journeys/{journey}/versions")
    draft = await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": {}}, headers={"If-Match": '"1"'})
    assert {run.status_code, campaign.status_code, version.status_code, draft.status_code} == {409}
    assert (await alice.client.get("/v1/journeys?archived=false")).json()["items"] == []
    assert (await alice.client.delete(f"/v1/journeys/{journey}/archive")).json()["archived_at"] is None


async def test_journeys_are_listed_in_pages(alice: Person) -> None:
    names = [f"Journey {n}" for n in range(5)]
    for name in names:
        await create(alice, {}, name)
    first = (await alice.client.get("/v1/journeys?limit=3")).json()
    second = (await alice.client.get("/v1/journeys", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [item["name"] for item in first["items"] + second["items"]] == names
    assert second["next_cursor"] is None


async def test_a_viewer_reads_and_changes_nothing(alice: Person, bob: Person, around: Surroundings) -> None:
    journey = await acme.publish(alice, around)
    assert (await bob.client.get(f"/v1/journeys/{journey}")).status_code == 200
    refused = [
        await bob.client.post("/v1/journeys", json={"name": "Bob's"}),
        await bob.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": {}}, headers={"If-Match": '"1"'}),
        await bob.client.post(f"/v1/journeys/{journey}/versions"),
        await bob.client.post(f"/v1/journeys/{journey}/runs", json={"contact_id": str(around.contact_id)}),
        await bob.client.put(f"/v1/journeys/{journey}/pause"),
        await bob.client.put(f"/v1/journeys/{journey}/cancellation"),
        await bob.client.put(f"/v1/journeys/{journey}/archive"),
    ]
    assert {answer.status_code for answer in refused} == {403}


async def test_another_organization_sees_404(alice: Person, charlie: Person, around: Surroundings) -> None:
    journey = await acme.publish(alice, around)
    path, client = f"/v1/journeys/{journey}", charlie.client
    answers = [
        await client.get(path),
        await client.get(f"{path}/check"),
        await client.patch(f"{path}/draft", json={"draft": {}}, headers={"If-Match": '"1"'}),
        await client.get(f"{path}/versions"),
        await client.get(f"{path}/versions/1"),
        await client.post(f"{path}/versions"),
        await client.post(f"{path}/runs", json={"contact_id": str(uuid4())}),
        await client.put(f"{path}/pause"),
        await client.delete(f"{path}/pause"),
        await client.put(f"{path}/cancellation"),
        await client.put(f"{path}/archive"),
        await client.delete(f"{path}/archive"),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)


@pytest.mark.parametrize("version", ["2", "0", "latest", "999999999999", "0193f5a4-6f5e-7d3c-9b1a-2f4c8e6d0a57", "%C2%B2"])
async def test_a_version_that_is_not_there_is_404(alice: Person, around: Surroundings, version: str) -> None:
    journey = await acme.publish(alice, around)
    assert (await alice.client.get(f"/v1/journeys/{journey}/versions/{version}")).status_code == 404


def test_the_fake_has_the_calls_of_the_client() -> None:
    assert all(hasattr(Client, name) for name in ("start_workflow", "get_workflow_handle"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/journeys", {}),
        ("/v1/campaigns", {"journey_id": str(UUID(int=1))}),
        ("/v1/segments", {"rule": {"tag": "vip"}}),
        ("/v1/templates", {"text": "Hello"}),
        ("/v1/topics", {"key": "tips"}),
        (f"/v1/journeys/{UUID(int=1)}/duplicates", {}),
    ],
)
async def test_whatever_people_name_has_a_name_that_can_be_seen(alice: Person, path: str, body: dict[str, Any]) -> None:
    for name in (" ", "", "\u2003"):
        answer = await alice.client.post(path, json={**body, "name": name})
        assert (answer.status_code, [problem["path"] for problem in answer.json()["errors"]]) == (422, ["name"]), answer.text


async def test_saving_nothing_in_the_place_of_a_draft_or_a_name_is_refused(alice: Person, around: Surroundings) -> None:
    made = (await alice.client.post("/v1/journeys", json={"name": " Welcome ", "draft": around.welcome()})).json()
    assert made["name"] == "Welcome"
    for body in ({"draft": None}, {"name": None}, {"name": " "}):
        answer = await alice.client.patch(f"/v1/journeys/{made['id']}/draft", json=body, headers={"If-Match": '"1"'})
        assert answer.status_code == 422, answer.text
    renamed = await alice.client.patch(f"/v1/journeys/{made['id']}/draft", json={"name": "Hello"}, headers={"If-Match": '"1"'})
    assert (renamed.json()["name"], renamed.json()["draft"], renamed.json()["revision"]) == ("Hello", around.welcome(), 2)


async def test_a_draft_that_has_ended_is_not_published(alice: Person, around: Surroundings) -> None:
    draft = around.welcome() | {"ends_at": "2020-01-01T00:00:00Z"}
    made = (await alice.client.post("/v1/journeys", json={"name": "Past", "draft": draft})).json()
    path = f"/v1/journeys/{made['id']}"
    assert [problem["code"] for problem in (await alice.client.get(f"{path}/check")).json()["problems"]] == ["in_the_past"]
    assert (await alice.client.post(f"{path}/versions")).status_code == 422
