"""A journey whose steps do things: to the contact, to another system, to consent, to colleagues. Over real parts, on virtual time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from temporalio.client import WorkflowExecution

from tests.journeys.conftest import Stack
from tests.journeys.histories import read_kept
from tests.journeys.organization import PATIENCE, Document, Organization
from tests.receiver import Received, Receiver, answering, receiving
from workflows.connection import payload_keys
from workflows.payloads import EncryptingCodec

ORDER_ID = "order-7f3a"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


async def steps(acme: Organization, receiver: Receiver, topic_id: str) -> Document:
    [member] = (await acme.get("/members"))["items"]
    template_id = await acme.template("Your order", "Order {{ run.order_id }} for {{ contact.first_name }}")
    return {
        "upgrade": {
            "kind": "update_contact",
            "attributes": {"plan": {"run": "bought"}},
            "add_tags": ["Buyer"],
            "next": "which",
        },
        "which": {
            "kind": "branch",
            "conditions": [{"name": "gold", "when": {"field": "attributes.plan", "is": "equals", "value": "gold"}, "next": "order"}],
            "otherwise": "other",
        },
        "order": {
            "kind": "call_webhook",
            "url": receiver.url,
            "body": {"customer": "{{ contact.email }}", "plan": "{{ contact.attributes.plan }}"},
            "save": {"order_id": {"path": "order.id", "type": "string"}, "total": {"path": "order.total", "type": "number"}},
            "on_failure": "path",
            "failed": "sorry",
            "next": "confirm",
        },
        "confirm": {"kind": "send", "template_id": template_id, "purpose": "transactional", "next": "join"},
        "join": {"kind": "subscribe", "topic_id": topic_id, "evidence": "bought a plan", "next": "tell"},
        "tell": {
            "kind": "notify_team",
            "members": [member["id"]],
            "subject": "Sold to {{ contact.first_name }}",
            "text": "Order {{ run.order_id }}",
            "next": "done",
        },
        "done": {"kind": "exit", "reason": "sold"},
        "other": {"kind": "exit", "reason": "not_gold"},
        "sorry": {"kind": "exit", "reason": "no_order"},
    }


@pytest.fixture
async def journey(acme: Organization, receiver: Receiver) -> tuple[str, str]:
    """Its id and its topic's."""
    await acme.call("PATCH", "/organization", {"attribute_schema": {"plan": {"type": "string"}}})
    topic_id = await acme.topic()
    return await acme.publish("upgrade", await steps(acme, receiver, topic_id)), topic_id


def working(stack: Stack, receiver: Receiver) -> Any:
    return replace(stack, settings=stack.settings.model_copy(update={"private_destinations": receiver.private})).working()


async def texts(acme: Organization) -> dict[str, str]:
    """What each address received: subject and text of its only mail."""
    heads = await acme.every("/sandbox/messages")
    mails = [await acme.get(f"/sandbox/messages/{head['id']}") for head in heads]
    assert len({mail["recipient"] for mail in mails}) == len(mails)
    return {mail["recipient"]: f"{mail['subject']}: {mail['text'].strip()}" for mail in mails}


async def test_a_run_goes_through_every_step_that_does_something(
    stack: Stack, acme: Organization, receiver: Receiver, journey: tuple[str, str]
) -> None:
    journey_id, topic_id = journey
    receiver.says_in_turn(answering(503, None, Retry_After="600"), answering(200, {"order": {"id": ORDER_ID, "total": "free"}}))
    contact_id = await acme.contact(first_name="Zoë")
    async with working(stack, receiver):
        run_id = await acme.start_run(journey_id, contact_id, variables={"bought": "gold"})
        run = await acme.until_run(run_id, "exited", "needs_attention")
    timeline = await acme.timeline(run_id)
    assert run["reason"] == "sold", timeline
    told = [entry for entry in timeline if entry["kind"] not in ("decision", "delivery")]
    assert [entry["kind"] for entry in told] == [
        *("entered", "contact_updated", "chose", "held", "woke", "called_webhook"),
        *("sent", "subscribed", "team_notified", "exited"),
    ]
    by_kind = {entry["kind"]: entry for entry in told}
    assert by_kind["held"]["reason"] == "webhook_answered_503"
    assert by_kind["contact_updated"]["details"]["fields"] == ["attributes.plan", "tags"]
    webhook = by_kind["called_webhook"]["details"]
    assert (webhook["status"], webhook["saved"], webhook["not_saved"]) == (200, ["order_id"], {"total": "wrong_type"})

    contact = await acme.get(f"/contacts/{contact_id}")
    assert (contact["attributes"], contact["tags"]) == ({"plan": "gold"}, ["buyer"])
    first, second = receiver.received
    assert first.document == {"customer": contact["email"], "plan": "gold"}
    assert first.headers["webhook-id"] == second.headers["webhook-id"]

    [member] = (await acme.get("/members"))["items"]
    assert await texts(acme) == {
        contact["email"]: f"Your order: Order {ORDER_ID} for Zoë",
        member["email"]: f"Sold to Zoë: Order {ORDER_ID}",
    }
    [consent] = (await acme.get(f"/contacts/{contact_id}/consents"))["items"]
    assert (consent["topic_id"], consent["status"], consent["method"]) == (topic_id, "granted", "journey")
    assert consent["source"].endswith(", version 1")

    actions = [entry["action"] for entry in await acme.every("/audit-entries") if entry["actor"]["kind"] == "system"]
    assert {"contact.changed", "effect.done", "consent.granted", "delivery.accepted", "run.exited"} <= set(actions)
    await nothing_personal_in_the_history(stack, run["workflow_id"], contact["email"])


async def nothing_personal_in_the_history(stack: Stack, workflow_id: str, email: str) -> None:
    workflows: list[WorkflowExecution] = []
    async with asyncio.timeout(PATIENCE):  # Temporal's lists lag a little behind
        while not workflows:
            workflows = [each async for each in stack.temporal.client.list_workflows(f"WorkflowId = '{workflow_id}'")]
            await asyncio.sleep(0.05)
    kept = await read_kept(stack.temporal.client, workflows, EncryptingCodec(payload_keys(stack.settings)))
    everything = "\n".join([*kept.sealed, *kept.open])
    assert workflow_id in everything
    assert not [value for value in (ORDER_ID, email, "Zoë") if value in everything]


async def test_each_run_takes_its_way(stack: Stack, acme: Organization, receiver: Receiver, journey: tuple[str, str]) -> None:
    journey_id, _ = journey
    people, (one, other) = await acme.contacts(12), await acme.contacts(2)
    unlucky = {f"person{number}@example.com" for number in range(1, 200, 4)}

    def order(received: Received) -> bytes:
        status = 422 if received.document["customer"] in unlucky else 200
        return answering(status, {"order": {"id": ORDER_ID, "total": 1}})

    receiver.answer = order
    async with working(stack, receiver):
        runs = [await acme.start_run(journey_id, contact, variables={"bought": "gold"}) for contact in people]
        silver = await acme.start_run(journey_id, one, variables={"bought": "silver"})
        bare = await acme.start_run(journey_id, other)
        ends = [(await acme.until_run(run_id, "exited", "needs_attention"))["reason"] for run_id in (*runs, silver, bare)]
    assert set(ends[:-2]) == {"sold", "no_order"} and ends[-2:] == ["not_gold", "not_gold"]
    refused = [entry for entry in await acme.timeline(bare) if entry["kind"] == "not_done"]
    assert [entry["reason"] for entry in refused] == ["no_variable:bought"]
