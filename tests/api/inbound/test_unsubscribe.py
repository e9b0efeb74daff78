import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from httpx2 import AsyncClient
from sqlalchemy import text

from models.domain.audit import SYSTEM
from models.domain.unsubscribe import Unsubscribe, make_token
from models.settings import Settings
from models.store import consents
from models.store.session import Database
from models.tables.base import utc_now
from tests.api.conftest import Person

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest_asyncio.fixture(loop_scope="session")
async def asked(alice: Person) -> Unsubscribe:
    """A contact of Acme who agreed to the topic <News>."""
    topic = (await alice.client.post("/v1/topics", json={"key": "news", "name": "<News>"})).json()["id"]
    contact = (await alice.client.post("/v1/contacts", json={"email": "ann@example.com"})).json()["id"]
    granted = {
        "contact_id": contact,
        "topic_id": topic,
        "channel": "email",
        "status": "granted",
        "method": "form",
        "source": "https://a.example",
    }
    answer = await alice.client.post("/v1/consents", json=granted)
    assert answer.status_code == 201, answer.text
    return Unsubscribe(alice.organization_id, UUID(contact), UUID(topic), "email", uuid4())


def link(settings: Settings, asked: Unsubscribe) -> str:
    return f"/u/{make_token(settings.derive_key('unsubscribe-links'), asked)}"


async def ledger(alice: Person, asked: Unsubscribe) -> list[tuple[str, str]]:
    lines = (await alice.client.get(f"/v1/consents?contact_id={asked.contact_id}")).json()["items"]
    return [(line["status"], line["method"]) for line in lines]


async def test_looking_changes_nothing(client: AsyncClient, alice: Person, settings: Settings, asked: Unsubscribe) -> None:
    for _ in range(3):
        answer = await client.get(link(settings, asked))
        assert answer.status_code == 200
    assert "&lt;News&gt;" in answer.text and "<News>" not in answer.text and '<form method="post">' in answer.text
    assert "set-cookie" not in answer.headers and "no-store" in answer.headers["cache-control"]
    assert await ledger(alice, asked) == [("granted", "form")]


async def test_one_click_withdraws_and_each_click_is_on_record(
    client: AsyncClient, alice: Person, settings: Settings, asked: Unsubscribe
) -> None:
    for _ in range(3):
        answer = await client.post(link(settings, asked), data=ONE_CLICK)
        assert answer.status_code == 200 and "location" not in answer.headers
    assert sorted(await ledger(alice, asked)) == [("granted", "form"), *[("withdrawn", "one_click")] * 3]
    lines = (await alice.client.get(f"/v1/consents?contact_id={asked.contact_id}")).json()["items"]
    withdrawn = [line for line in lines if line["status"] == "withdrawn"]
    assert all(line["evidence"] == {"delivery_id": str(asked.delivery_id)} for line in withdrawn)
    [current] = (await alice.client.get(f"/v1/contacts/{asked.contact_id}/consents")).json()["items"]
    assert (current["status"], current["occurred_at"]) == ("withdrawn", withdrawn[-1]["occurred_at"])


async def test_one_click_withdraws_what_a_host_that_is_ahead_has_just_granted(
    client: AsyncClient, alice: Person, settings: Settings, asked: Unsubscribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted = {
        "contact_id": str(asked.contact_id),
        "topic_id": str(asked.topic_id),
        "channel": "email",
        "status": "granted",
        "method": "form",
        "source": "https://a.example",
    }
    with monkeypatch.context() as host:
        host.setattr("api.commands.consents.utc_now", lambda: utc_now() + timedelta(seconds=50))
        assert (await alice.client.post("/v1/consents", json=granted)).status_code == 201
    assert (await client.post(link(settings, asked), data=ONE_CLICK)).status_code == 200
    [line] = (await alice.client.get(f"/v1/contacts/{asked.contact_id}/consents")).json()["items"]
    assert line["status"] == "withdrawn"


async def test_one_click_is_the_last_word_also_while_a_consent_is_being_written(
    client: AsyncClient, alice: Person, settings: Settings, asked: Unsubscribe, database: Database
) -> None:
    """It finds that the contact has left already, and must not leave it at that."""
    path = link(settings, asked)
    assert (await client.post(path, data=ONE_CLICK)).status_code == 200
    again = consents.NewConsent(asked.contact_id, asked.topic_id, asked.channel, "granted", "form", "https://a.example", {}, SYSTEM, None)
    async with database.organization(alice.organization_id) as granting:
        await consents.record(granting, [again])
        clicking = asyncio.ensure_future(client.post(path, data=ONE_CLICK))
        waiting = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
        async with asyncio.timeout(60):
            while not clicking.done() and not await granting.scalar(waiting):
                await asyncio.sleep(0.01)
    assert (await clicking).status_code == 200
    [line] = (await alice.client.get(f"/v1/contacts/{asked.contact_id}/consents")).json()["items"]
    assert (line["status"], line["method"]) == ("withdrawn", "one_click")


async def test_one_click_works_as_multipart_too(client: AsyncClient, alice: Person, settings: Settings, asked: Unsubscribe) -> None:
    answer = await client.post(link(settings, asked), files={"List-Unsubscribe": (None, "One-Click")})
    assert answer.status_code == 200
    assert ("withdrawn", "one_click") in await ledger(alice, asked)


async def test_a_post_without_the_click_changes_nothing(client: AsyncClient, alice: Person, settings: Settings, asked: Unsubscribe) -> None:
    path = link(settings, asked)
    for answer in (
        await client.post(path),
        await client.post(path, data={"List-Unsubscribe": "no"}),
        await client.post(path, json=ONE_CLICK),
    ):
        assert answer.status_code == 400
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert (await client.post(link(settings, asked), content=b"--y", headers=broken)).status_code == 400
    assert await ledger(alice, asked) == [("granted", "form")]


async def test_a_forged_or_foreign_token_is_unknown(
    client: AsyncClient, alice: Person, charlie: Person, settings: Settings, asked: Unsubscribe
) -> None:
    token = link(settings, asked)
    other = settings.model_copy(update={"secret_key": settings.secret_key.__class__(b"x" * 32)})
    foreign = link(settings, replace(asked, organization_id=charlie.organization_id))
    for path in ("/u/preview", token[:-9] + "AAAAAAAAA", link(other, asked), foreign, link(settings, replace(asked, topic_id=uuid4()))):
        assert (await client.get(path)).status_code == 404
        assert (await client.post(path, data=ONE_CLICK)).status_code == 404
    assert await ledger(alice, asked) == [("granted", "form")]
