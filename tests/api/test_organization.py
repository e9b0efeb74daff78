import base64
from typing import Any

import pytest

from api.commands.organizations import create_organization, organization_id_of
from api.dependencies import Services
from models.domain.errors import Conflict
from models.tables.base import new_id
from tests.api.conftest import PASSWORD, Person, anonymous


async def test_settings_change_and_the_rest_stays(alice: Person) -> None:
    hours = {"email": {"start": "21:00", "end": "08:00"}, "sms": {"start": "20:00", "end": "09:30"}}
    schema = {"plan": {"type": "string"}}
    change = {"timezone": "Europe/Berlin", "quiet_hours": hours, "attribute_schema": schema}
    answer = (await alice.client.patch("/v1/organization", json=change)).json()
    assert {name: answer[name] for name in change} == change
    assert answer["name"] == "Acme"
    answer = (await alice.client.patch("/v1/organization", json={"quiet_hours": {"sms": None}})).json()
    assert answer["quiet_hours"] == {"email": hours["email"]}
    assert (await alice.client.get("/v1/organization")).json() == answer
    assert answer["attribute_schema"] == schema


async def test_the_record_names_the_fields_and_says_nothing_of_a_change_that_is_none(alice: Person) -> None:
    for _ in range(2):
        await alice.client.patch("/v1/organization", json={"timezone": "Asia/Tokyo"})
    entries = (await alice.client.get("/v1/audit-entries", params={"action": "organization.changed"})).json()["items"]
    assert [entry["details"] for entry in entries] == [{"fields": ["timezone"]}]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "America"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"name": "  "}, "name"),
        ({"quiet_hours": {}}, "quiet_hours"),  # it would look as if all were taken away
        ({"quiet_hours": {"pigeon": {"start": "21:00", "end": "08:00"}}}, "quiet_hours.pigeon"),
        ({"quiet_hours": {"email": {"start": "9 pm", "end": "08:00"}}}, "quiet_hours.email.start"),
        ({"quiet_hours": {"email": {"start": "08:00", "end": "08:00"}}}, "quiet_hours.email"),
        ({"quiet_hours": {"email": {"start": "24:00", "end": "08:00"}}}, "quiet_hours.email.start"),
        ({"attribute_schema": {"plan": {"type": "money"}}}, "attribute_schema.plan"),
        ({"attribute_schema": {"1 plan": {"type": "string"}}}, "attribute_schema.1 plan"),
        ({"status": "active"}, "status"),
    ],
)
async def test_a_setting_that_breaks_a_rule_is_refused_by_its_path(alice: Person, change: dict[str, Any], path: str) -> None:
    answer = await alice.client.patch("/v1/organization", json=change)
    assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (422, [path])
    assert (await alice.client.get("/v1/organization")).json()["timezone"] == "UTC"


@pytest.mark.parametrize("schema", [{"seats": {"type": "integer"}}, {"plan": {"type": "number"}, "seats": {"type": "integer"}}, {}])
async def test_an_attribute_that_contacts_have_values_for_keeps_its_type(alice: Person, charlie: Person, schema: dict[str, Any]) -> None:
    declared = {"plan": {"type": "string"}, "seats": {"type": "integer"}}
    for person in (alice, charlie):
        await person.client.patch("/v1/organization", json={"attribute_schema": declared})
    for name in ("ann", "ben"):
        await alice.client.post("/v1/contacts", json={"email": f"{name}@example.com", "attributes": {"plan": "pro"}})
    refused = await alice.client.patch("/v1/organization", json={"attribute_schema": schema})
    assert (refused.status_code, refused.json()["code"]) == (409, "attribute_in_use")
    assert "plan (2 contacts)" in refused.json()["detail"]
    assert "seats" not in refused.json()["detail"]
    assert (await alice.client.get("/v1/organization")).json()["attribute_schema"] == declared
    assert (await charlie.client.patch("/v1/organization", json={"attribute_schema": schema})).status_code == 200


async def test_an_attribute_without_values_may_go_or_change(alice: Person) -> None:
    await alice.client.patch("/v1/organization", json={"attribute_schema": {"plan": {"type": "string"}}})
    ann = {"email": "ann@example.com", "attributes": {"plan": "pro"}}
    await alice.client.post("/v1/contacts", json=ann)
    more = {"plan": {"type": "string"}, "seats": {"type": "integer"}}
    assert (await alice.client.patch("/v1/organization", json={"attribute_schema": more})).status_code == 200
    await alice.client.post("/v1/contacts", json=ann | {"attributes": {"plan": None}})
    for schema in ({"plan": {"type": "number"}}, {}):
        answer = await alice.client.patch("/v1/organization", json={"attribute_schema": schema})
        assert (answer.status_code, answer.json()["attribute_schema"]) == (200, schema)


async def test_a_viewer_reads_but_does_not_change(bob: Person) -> None:
    assert (await bob.client.get("/v1/organization")).status_code == 200
    assert (await bob.client.patch("/v1/organization", json={"name": "Bob's"})).status_code == 403


async def test_a_created_organization_can_be_used(services: Services, app: Any) -> None:
    slug, email = f"dune-{new_id().hex[-12:]}", f"dora-{new_id().hex[-12:]}@example.com"
    made = await create_organization(services, "Dune", slug, email, PASSWORD)
    async with anonymous(app, Authorization=f"Bearer {made.api_key}") as client:
        assert (await client.get("/v1/organization")).json()["slug"] == slug
        actions = [entry["action"] for entry in (await client.get("/v1/audit-entries")).json()["items"]]
        connections = await client.get("/v1/connections")
    assert actions == ["organization.created", "member.added", "api_key.created", "connection.created"]
    assert await organization_id_of(services, slug) == made.organization_id
    with pytest.raises(Conflict, match=slug):
        await create_organization(services, "Dune", slug, email, PASSWORD)
    assert [connection["is_default"] for connection in connections.json()["items"]] == [True]


async def test_an_owner_of_two_organizations_keeps_one_login(services: Services) -> None:
    email = f"dora-{new_id().hex[-12:]}@example.com"
    first = await create_organization(services, "One", f"one-{new_id().hex[-12:]}", email, PASSWORD)
    second = await create_organization(services, "Two", f"two-{new_id().hex[-12:]}", email, "a different password")
    assert first.user_id == second.user_id


async def test_receivers_of_webhooks_get_the_secret_that_they_are_signed_with(alice: Person, bob: Person, charlie: Person) -> None:
    answer = await alice.client.get("/v1/organization/webhook-secret")
    assert answer.headers["cache-control"] == "no-store"
    secret = base64.b64decode(answer.json()["secret"].removeprefix("whsec_"))
    assert len(secret) == 32
    assert (await alice.client.get("/v1/organization/webhook-secret")).json() == answer.json()
    assert (await charlie.client.get("/v1/organization/webhook-secret")).json() != answer.json()
    assert (await bob.client.get("/v1/organization/webhook-secret")).status_code == 403
