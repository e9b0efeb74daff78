from typing import Any

from models.store.session import Database
from tests.api.conftest import Person
from tests.api.conftest import temporal as temporal  # connects to nothing
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings


async def compare(person: Person, journey: str, query: str) -> dict[str, Any]:
    answer = await person.client.get(f"/v1/journeys/{journey}/differences?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_version_is_compared_with_the_draft_and_with_another(alice: Person, around: Surroundings, database: Database) -> None:
    journey = await acme.publish(alice, around)
    nothing: dict[str, Any] = {"added": [], "removed": [], "changed": [], "rules": [], "templates": []}
    assert await compare(alice, journey, "from=1") == nothing
    async with database.organization(alice.organization_id) as session:
        await acme.add_version(session, alice.organization_id, around.template_id, 2, "Hello again")
    draft = around.welcome(next="end")
    draft["steps"] = {"welcome": draft["steps"]["welcome"], "end": {"kind": "exit", "reason": "done"}}
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": draft}, headers={"If-Match": '"1"'})
    found = await compare(alice, journey, "from=1&to=draft")
    assert ([step["step_id"] for step in found["added"]], [step["step_id"] for step in found["removed"]]) == (["end"], ["pause"])
    assert [field["path"] for field in found["changed"][0]["fields"]] == ["next", "template_version_id"]
    subject = {"path": "subject", "before": "Hello", "after": "Hello again"}
    assert found["templates"] == [{"step_id": "welcome", "kind": "send", "fields": [subject]}]
    assert (await alice.client.post(f"/v1/journeys/{journey}/versions")).status_code == 201
    assert await compare(alice, journey, "from=1&to=2") == found
    assert [step["step_id"] for step in (await compare(alice, journey, "from=2&to=1"))["added"]] == ["pause"]
    assert await compare(alice, journey, "from=2&to=2") == nothing


async def test_what_is_not_there_or_not_well_formed(alice: Person, bob: Person, around: Surroundings) -> None:
    journey = await acme.publish(alice, around)
    path = f"/v1/journeys/{journey}/differences"
    assert (await alice.client.get(f"{path}?from=1&to=2")).status_code == 404
    assert (await alice.client.get(f"{path}?to=1")).status_code == 422
    assert (await alice.client.get(f"{path}?from=1&to=final")).status_code == 422
    assert (await bob.client.get(f"{path}?from=1")).status_code == 200
    await alice.client.patch(f"/v1/journeys/{journey}/draft", json={"draft": {"idea": 1}}, headers={"If-Match": '"1"'})
    refused = await alice.client.get(f"{path}?from=1")
    assert (refused.status_code, refused.json()["code"]) == (422, "unpublishable")
