import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from temporalio.client import Client

from activities.contracts.sending import SendOutcome
from activities.providers.destination import Destinations
from activities.providers.smtp import SmtpAccount, SmtpProvider
from api.dependencies import Services
from models.settings import Settings
from models.store.session import Database
from tests.api.conftest import Person
from tests.api.conftest import temporal as temporal  # connects to nothing
from tests.inbox import Fence, RunningInbox, email


@pytest_asyncio.fixture(loop_scope="session")
async def services(served: Settings, database: Database, temporal: Client) -> Services:
    return Services(settings=served, database=database, temporal=temporal)


@pytest_asyncio.fixture(loop_scope="session")
async def inbox(served: Settings, database: Database, alice: Person) -> RunningInbox:
    return RunningInbox(served, database, alice.organization_id)


@pytest_asyncio.fixture(loop_scope="session")
async def provider(inbox: RunningInbox) -> AsyncIterator[SmtpProvider]:
    built = SmtpProvider(SmtpAccount.of(inbox.connection(), inbox.settings), Destinations(inbox.settings))
    yield built
    await built.close()


async def test_received_mail_is_listed_filtered_and_read(alice: Person, provider: SmtpProvider) -> None:
    first, second = email(recipient="ann@example.org", subject="Grüße"), email(recipient="bob@example.org", text="Zwei\nZeilen")
    for message in (first, second):
        await provider.send(message, Fence())
    items = (await alice.client.get("/v1/sandbox/messages")).json()["items"]
    assert [item["subject"] for item in items] == ["Grüße", "This week"]
    assert [i["recipient"] for i in (await alice.client.get("/v1/sandbox/messages?recipient=BOB@example.org")).json()["items"]] == [
        "bob@example.org"
    ]
    found = (await alice.client.get(f"/v1/sandbox/messages?delivery_id={first.delivery_id}")).json()["items"]
    assert [item["id"] for item in found] == [items[0]["id"]]
    later = (await alice.client.get("/v1/sandbox/messages", params={"after": items[0]["received_at"]})).json()["items"]
    assert [item["id"] for item in later] == [items[1]["id"]]
    one = (await alice.client.get(f"/v1/sandbox/messages/{items[1]['id']}")).json()
    assert (one["text"].strip(), one["html"].strip()) == ("Zwei\nZeilen", "<p>Hello Ann</p>")
    assert one["raw"].startswith("From: ")
    page = (await alice.client.get("/v1/sandbox/messages?limit=1")).json()
    rest = (await alice.client.get("/v1/sandbox/messages", params={"limit": 1, "cursor": page["next_cursor"]})).json()
    assert [page["items"][0]["id"], rest["items"][0]["id"]] == [item["id"] for item in items]


async def test_clearing_empties_the_inbox(alice: Person, provider: SmtpProvider) -> None:
    await provider.send(email(), Fence())
    assert (await alice.client.delete("/v1/sandbox/messages")).json() == {"messages": 1}
    assert (await alice.client.get("/v1/sandbox/messages")).json()["items"] == []


async def test_discarded_mail_is_counted_and_not_kept(alice: Person, inbox: RunningInbox) -> None:
    provider = SmtpProvider(SmtpAccount.of(inbox.connection(discard=True), inbox.settings), Destinations(inbox.settings))
    for _ in range(5):
        assert (await provider.send(email(), Fence())).outcome is SendOutcome.ACCEPTED
    await provider.close()
    async with asyncio.timeout(60):  # the inbox counts what it throws away now and then
        while (await alice.client.get("/v1/sandbox/discarded")).json() != {"discarded": 5}:
            await asyncio.sleep(0.1)
    assert (await alice.client.get("/v1/sandbox/messages")).json()["items"] == []


async def test_a_fault_strikes_as_often_as_told(alice: Person, provider: SmtpProvider) -> None:
    created = await alice.client.post("/v1/sandbox/faults", json={"phase": "rcpt", "action": "reply", "code": 451, "remaining": 2})
    assert created.status_code == 201, created.text
    outcomes = [(await provider.send(email(), Fence())).outcome for _ in range(3)]
    assert outcomes == [SendOutcome.TRANSIENT, SendOutcome.TRANSIENT, SendOutcome.ACCEPTED]
    assert (await alice.client.get("/v1/sandbox/faults")).json()["items"][0]["remaining"] == 0
    assert (await alice.client.delete(f"/v1/sandbox/faults/{created.json()['id']}")).status_code == 204
    assert (await alice.client.get("/v1/sandbox/faults")).json()["items"] == []


async def test_counted_faults_strike_no_more_often_with_many_links(alice: Person, provider: SmtpProvider) -> None:
    await alice.client.post("/v1/sandbox/faults", json={"phase": "rcpt", "action": "refuse", "remaining": 5})
    answers = await asyncio.gather(*(provider.send(email(recipient=f"c{n}@example.org"), Fence()) for n in range(20)))
    assert [answer.outcome for answer in answers].count(SendOutcome.RECIPIENT_PERMANENT) == 5


async def test_a_fault_that_makes_no_sense_is_refused(alice: Person) -> None:
    for fault in (
        {"phase": "rcpt", "action": "drop_after_dot"},
        {"phase": "mail", "action": "delay"},
        {"phase": "auth", "action": "refuse", "recipient": "ann@example.com"},
        {"phase": "data", "action": "reply", "code": 250},
        {"phase": "data", "action": "reply", "message": "a\r\n250 OK"},
    ):
        assert (await alice.client.post("/v1/sandbox/faults", json=fault)).status_code == 422, fault


async def test_another_organization_has_another_inbox(alice: Person, charlie: Person, provider: SmtpProvider) -> None:
    await provider.send(email(), Fence())
    [item] = (await alice.client.get("/v1/sandbox/messages")).json()["items"]
    fault = (await alice.client.post("/v1/sandbox/faults", json={"phase": "mail", "action": "refuse"})).json()
    assert (await charlie.client.get("/v1/sandbox/messages")).json()["items"] == []
    assert (await charlie.client.get(f"/v1/sandbox/messages/{item['id']}")).status_code == 404
    assert (await charlie.client.delete(f"/v1/sandbox/faults/{fault['id']}")).status_code == 404
    await charlie.client.delete("/v1/sandbox/messages")
    await charlie.client.delete("/v1/sandbox/faults")
    assert len((await alice.client.get("/v1/sandbox/messages")).json()["items"]) == 1
    assert len((await alice.client.get("/v1/sandbox/faults")).json()["items"]) == 1
