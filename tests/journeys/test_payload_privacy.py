"""What Temporal keeps holds ids and codes: no address, no phone number, no name, neither in the open nor under the cipher."""

import asyncio
import base64
import json
import sysconfig
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from httpx2 import ASGITransport
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowExecution, WorkflowHistory

from activities.contracts.search_attributes import SEARCH_ATTRIBUTES
from api.app import create_app
from deploy.demo.api import PublicApi
from deploy.demo.people import Person, read_file
from deploy.demo.scene import set_scene
from deploy.environment import ROOT
from tests.histories.fingerprint import patches
from tests.journeys.conftest import Stack
from tests.journeys.histories import Kept, Wanted, leaves, read_kept, readable
from tests.journeys.organization import PATIENCE, Organization
from workflows.connection import payload_keys
from workflows.payloads import EncryptingCodec

PEOPLE = 30


@dataclass(frozen=True)
class Played:
    """A demo that has been played, with everything an operator can do to it."""

    stack: Stack
    organization: Organization
    campaigns: Sequence[str]
    run_id: str
    contacts: Sequence[dict[str, Any]]
    workflows: Sequence[WorkflowExecution]
    kept: Kept
    wanted: Wanted


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def played(stack: Stack) -> AsyncIterator[Played]:
    organization = await stack.found("demo")
    file, people = read_file(PEOPLE)
    transport = ASGITransport(app=create_app(stack.services))
    key = organization.client.headers["Authorization"].removeprefix("Bearer ")
    async with stack.working(), PublicApi("http://test", key, transport=transport) as api:
        await _refuse_by_name(organization, people)
        with organization.real_time():  # as `launch` does: with virtual time the campaign's workflow would do nothing but look and replay
            scene = await set_scene(api, people, file, lambda _: None)
        second = await organization.launch(scene.journey_id, page_size=10)
        await organization.call("PUT", f"/campaigns/{second}/pause", {"reason": "wrong price"})
        await organization.call("DELETE", f"/campaigns/{second}/pause")
        await asyncio.gather(*(organization.until_campaign(one) for one in (scene.campaign_id, second)))
        contacts = await organization.every("/contacts")
        run_id = await _steer_one_run(stack, organization, scene.journey_id, contacts[0])
    workflows = await _workflows(stack, organization)
    kept = await read_kept(stack.temporal.client, workflows, EncryptingCodec(payload_keys(stack.settings)))
    yield Played(stack, organization, [scene.campaign_id, second], run_id, contacts, workflows, kept, _wanted(contacts, people))
    await organization.client.aclose()


async def _refuse_by_name(organization: Organization, people: Sequence[Person]) -> None:
    """The mail server answers some recipients with their own address and name, as real ones do."""
    agreed = [one for one in people if one.email and not one.opted_out and one.answer("newsletter") == "yes" and one.first_name.isascii()]
    assert len(agreed) >= 3
    for number, one in enumerate(agreed[:3]):
        answer = {"message": f"<{one.email}> ({one.first_name}) is not here", "recipient": one.email, "code": 450 if number % 2 else 550}
        await organization.post("/sandbox/faults", {"phase": "rcpt", "action": "reply", "remaining": 1, **answer})


async def _steer_one_run(stack: Stack, organization: Organization, journey_id: str, contact: dict[str, Any]) -> str:
    await _slow_down(organization, journey_id)
    variables = {"invited_by": contact["email"], "guest": contact["first_name"]}
    with stack.temporal.with_time_skipping_disabled():
        run_id = await organization.start_run(journey_id, contact["id"], variables=variables)
        await organization.until_run(run_id, "waiting")
        await organization.call("PUT", f"/runs/{run_id}/pause", {"reason": "asked by phone"})
        await organization.call("DELETE", f"/runs/{run_id}/pause")
        await organization.call("PUT", f"/runs/{run_id}/cancellation", {"reason": "left us"})
        await organization.until_run(run_id, "cancelled")
    return run_id


async def _slow_down(organization: Organization, journey_id: str) -> None:
    """Publishes the journey with waits for longer than a busy machine takes to be told of a pause: in the demo they are seconds."""
    journey = await organization.get(f"/journeys/{journey_id}")
    steps = {name: {**step, "duration": "P1D"} if step["kind"] == "wait" else step for name, step in journey["draft"]["steps"].items()}
    draft, seen = {**journey["draft"], "steps": steps}, {"If-Match": f'"{journey["revision"]}"'}
    await organization.call("PATCH", f"/journeys/{journey_id}/draft", {"draft": draft}, headers=seen)
    await organization.post(f"/journeys/{journey_id}/versions", None)


async def _workflows(stack: Stack, organization: Organization) -> list[WorkflowExecution]:
    """All of the organization's. Temporal's lists lag a little behind."""
    query = f"OrganizationId = '{organization.id}'"
    campaigns = {f"{organization.id}/campaign/{campaign['id']}" for campaign in await organization.every("/campaigns")}
    expected = campaigns | {str(run["workflow_id"]) for run in await organization.every("/runs")}
    async with asyncio.timeout(PATIENCE):
        while True:
            found = [workflow async for workflow in stack.temporal.client.list_workflows(query)]
            names = {workflow.id for workflow in found}
            controlled = any(name.startswith(f"{organization.id}/control/") for name in names)
            if controlled and expected <= names and all(workflow.close_time is not None for workflow in found):
                return found
            await asyncio.sleep(0.2)


def _wanted(contacts: Sequence[dict[str, Any]], people: Sequence[Person]) -> Wanted:
    anywhere = [value for contact in contacts for value in (contact["email"], (contact["phone"] or "").lstrip("+"), contact["external_id"])]
    anywhere += [one.phone for one in people] + [contact["attributes"].get("company") for contact in contacts]
    names = [value for contact in contacts for value in (contact["first_name"], contact["last_name"])]
    return Wanted([value for value in anywhere if value], [value for value in names if value])


# --- the histories --------------------------------------------------------------------------------------------------


async def test_the_histories_hold_every_kind_of_workflow_and_every_contacts_id(played: Played) -> None:
    assert {workflow.workflow_type for workflow in played.workflows} == {"JourneyWorkflow", "CampaignWorkflow", "ControlWorkflow"}
    assert len([workflow for workflow in played.workflows if "/page/" in workflow.id]) == 1 + PEOPLE // 10
    everything = "\n".join(played.kept.sealed)  # what follows would prove nothing if this could not be read
    assert len(played.contacts) == PEOPLE and all(contact["id"] in everything for contact in played.contacts)


async def test_no_personal_data_is_in_the_open(played: Played) -> None:
    assert not played.wanted.found_in(played.kept.open)
    addresses = [contact["email"].lower().encode() for contact in played.contacts if contact["email"]]
    assert not [address for address in addresses if any(address in stored.lower() for stored in played.kept.ciphertexts)]


async def test_no_personal_data_is_under_the_cipher(played: Played) -> None:
    assert not played.wanted.found_in(played.kept.sealed)


async def test_only_search_attributes_and_patches_are_unencrypted_and_they_are_ids(played: Played) -> None:
    assert len(played.kept.ciphertexts) > 100
    assert not [payload for payload in played.kept.unencrypted if not _is_of_ids(payload)]
    kinds = {payload.metadata["type"] for payload in played.kept.unencrypted if "type" in payload.metadata}
    assert kinds == {b"Keyword", b"KeywordList"}  # ours, and Temporal's own BuildIds


async def test_what_a_patch_leaves_in_a_history_is_its_id() -> None:
    """Whether a run of the above meets one is chance: two writes of one trip's record have to overlap."""
    recorded = WorkflowHistory.from_json("one", (ROOT / "tests/histories/waits_left_by_a_skip_and_a_jump.json").read_text())
    marker = next(event for event in recorded.events if event.HasField("marker_recorded_event_attributes"))
    upsert = next(event for event in recorded.events if event.HasField("upsert_workflow_search_attributes_event_attributes"))
    payloads = [leaf for event in (marker, upsert) for leaf in leaves(event) if isinstance(leaf, Payload)]
    assert len(payloads) == 2 and all(_is_of_ids(payload) for payload in payloads)
    for data in (b'{"id":"ada@example.com","deprecated":false}', b'{"id":"2026-11-26-left-waits","of":"Ada"}', b'["Ada"]'):
        assert not _is_of_ids(Payload(metadata=payloads[0].metadata, data=data))
    assert not _is_of_ids(Payload(metadata=payloads[1].metadata, data=b'["2026-11-26-left-waits", "Ada"]'))


def _is_of_ids(payload: Payload) -> bool:
    """A search attribute of ours, Temporal's BuildIds or TemporalChangeVersion, or the marker of a patch of ours."""
    value = json.loads(payload.data)
    match payload.metadata.get("type"):
        case b"Keyword":
            return bool(UUID(value))
        case b"KeywordList":
            return all(one.startswith("unversioned") or one in patches() for one in value)
        case None:
            return isinstance(value, dict) and value.keys() == {"id", "deprecated"} and value["id"] in patches()
    return False


# --- the finder, without which the above would be worth nothing -----------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"to": "ADA@Example.com"}',
        "call 12125550123 now",
        '["Zoë"]',
        readable(b'{"name": "Zo\\u00eb"}'),
        "Dear Smith, Jr.!",
        "王",
    ],
)
def test_the_finder_finds_personal_data(text: str) -> None:
    assert Wanted(["ada@example.com", "12125550123"], ["Zoë", "Smith, Jr.", "王"]).found_in([text])


@pytest.mark.parametrize("text", ["hours", '{"cursor": 1}', "maximum_attempts", "01a20921-4fa6-7782-914f-9cd9993d7987"])
def test_the_finder_takes_no_part_of_a_word_for_a_name(text: str) -> None:
    assert not Wanted(["ada@example.com"], ["Urs", "Max", "Ada"]).found_in([text])


def test_the_finder_looks_everywhere_in_an_event() -> None:
    event = HistoryEvent()
    started = event.workflow_execution_started_event_attributes
    started.identity = "in a field"
    started.input.payloads.append(Payload(data=b"in an input"))
    started.memo.fields["in a key"].CopyFrom(Payload(data=b"in a memo"))
    started.continued_failure.cause.message = "in a failure's cause"
    event.user_metadata.summary.data = b"in a summary"
    found = [leaf.data.decode() if isinstance(leaf, Payload) else leaf for leaf in leaves(event)]
    assert {"in a field", "in an input", "in a key", "in a memo", "in a failure's cause", "in a summary"} <= set(found)


# --- Temporal's own command line ------------------------------------------------------------------------------------


async def test_temporals_command_line_lists_a_campaigns_workflows_with_their_search_attributes(played: Played) -> None:
    campaign = await played.organization.campaign(played.campaigns[1])
    listed = json.loads(await _temporal(played, "workflow", "list", "--query", f"CampaignId = '{campaign['id']}'", "--output", "json"))
    journeys = [one for one in listed if one["type"]["name"] == "JourneyWorkflow"]
    assert len(journeys) == PEOPLE // 10
    expected = {
        "OrganizationId": str(played.organization.id),
        "JourneyId": campaign["journey_id"],
        "VersionId": campaign["version_id"],
        "CampaignId": campaign["id"],
    }
    assert set(expected) == {attribute.name for attribute in SEARCH_ATTRIBUTES}
    for one in journeys:
        fields = one["searchAttributes"]["indexedFields"]
        assert {name: _text(fields[name]) for name in expected} == expected


def _text(indexed: dict[str, Any]) -> str:
    """A search attribute's value: the command line shows it as a payload, in base64."""
    return str(json.loads(base64.b64decode(indexed["data"])))


async def test_temporals_command_line_shows_a_workflow_without_personal_data(played: Played) -> None:
    run = await played.organization.run(played.run_id)
    shown = await _temporal(played, "workflow", "show", "--workflow-id", run["workflow_id"], "--output", "json")
    kinds = [event["eventType"] for event in json.loads(shown)["events"]]
    assert kinds[0] == "EVENT_TYPE_WORKFLOW_EXECUTION_STARTED" and kinds[-1] == "EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED"
    table = await _temporal(played, "workflow", "show", "--workflow-id", run["workflow_id"])
    assert "WorkflowExecutionCompleted" in table
    [workflow] = [one for one in played.workflows if one.id == run["workflow_id"]]
    kept = await read_kept(played.stack.temporal.client, [workflow], EncryptingCodec(payload_keys(played.stack.settings)))
    assert not played.wanted.found_in(_without(kept.ciphertexts, text) for text in (shown, table))


def _without(ciphertexts: Sequence[bytes], text: str) -> str:
    """The output without what is encrypted: in a base64 text of chance, a name of two letters is found sooner or later."""
    encoded = {base64.b64encode(ciphertext).decode() for ciphertext in ciphertexts}
    assert any(one in text for one in encoded)
    for one in encoded:
        text = text.replace(one, "…")
    return text


async def _temporal(played: Played, *arguments: str) -> str:
    client = played.stack.temporal.client
    process = await asyncio.create_subprocess_exec(
        Path(sysconfig.get_path("scripts")) / "temporal",
        *arguments,
        "--address",
        client.service_client.config.target_host,
        "--namespace",
        client.namespace,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()
