"""The inbox as a mail server sees it: line by line, without our provider."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest
import pytest_asyncio

from activities.providers.destination import Destinations, sandbox_certificate
from api.sandbox import recorder
from api.sandbox.certificate import server_tls
from api.sandbox.recorder import NotStored, Recorder, Uncertain
from models.sandbox_account import sandbox_password
from models.settings import Settings
from models.store import sandbox
from models.store.sandbox import ReceivedMessage
from models.store.session import Database, OrganizationSession
from models.tables.base import new_id
from tests.inbox import RunningInbox, new_organization, serving


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(settings: Settings) -> AsyncIterator[Settings]:
    async with serving(settings) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def inbox(served: Settings, database: Database) -> RunningInbox:
    return RunningInbox(served, database, await new_organization(database))


class Talk:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def __aenter__(self) -> "Talk":
        self.reader, self.writer = await asyncio.open_connection(self.settings.sandbox_smtp_host, self.settings.sandbox_smtp_port)
        assert (await self.reply()).startswith("220")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def reply(self) -> str:
        while True:
            line = (await asyncio.wait_for(self.reader.readline(), 60)).decode()
            if line[3:4] != "-":
                return line.strip()

    async def say(self, line: str) -> str:
        self.writer.write(line.encode() + b"\r\n")
        return await self.reply()

    async def encrypt(self) -> None:
        assert (await self.say("STARTTLS")).startswith("220")
        context = Destinations(self.settings).tls(self.settings.sandbox_smtp_host, self.settings.sandbox_smtp_port)
        await self.writer.start_tls(context, server_hostname=self.settings.sandbox_smtp_host)

    async def log_in(self, inbox: RunningInbox) -> None:
        await self.encrypt()
        assert (await self.say(plain(str(inbox.organization_id), sandbox_password(inbox.settings, inbox.organization_id)))).startswith(
            "235"
        )


def plain(username: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{username}\0{password}".encode()).decode()


async def test_nothing_goes_without_encryption_and_login(inbox: RunningInbox) -> None:
    async with Talk(inbox.settings) as talk:
        assert (await talk.say("MAIL FROM:<a@example.com>")).startswith("530")
        assert (await talk.say(plain(str(inbox.organization_id), "x"))).startswith("538")
        await talk.encrypt()
        assert (await talk.say("MAIL FROM:<a@example.com>")).startswith("530")
        assert (await talk.say("DATA")).startswith("503")


async def test_only_the_right_password_opens(inbox: RunningInbox) -> None:
    theirs = sandbox_password(inbox.settings, uuid4())
    async with Talk(inbox.settings) as talk:
        await talk.encrypt()
        for username, password in ((str(inbox.organization_id), theirs), ("nobody", theirs), (str(inbox.organization_id), "")):
            assert (await talk.say(plain(username, password))).startswith("535")
        for nonsense in ("AUTH PLAIN !!!", "AUTH PLAIN AAAA", "AUTH CRAM-MD5", "AUTH"):
            assert (await talk.say(nonsense))[:1] == "5"
        assert (await talk.say("AUTH LOGIN")).startswith("334")
        assert (await talk.say(base64.b64encode(str(inbox.organization_id).encode()).decode())).startswith("334")
        own = sandbox_password(inbox.settings, inbox.organization_id)
        assert (await talk.say(base64.b64encode(own.encode()).decode())).startswith("235")


async def test_commands_sent_in_one_go_are_answered_in_order(inbox: RunningInbox) -> None:
    async with Talk(inbox.settings) as talk:
        await talk.log_in(inbox)
        talk.writer.write(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n")
        assert [(await talk.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        talk.writer.write(b"Subject: x\r\n\r\n..dot\r\n.\r\nNOOP\r\nQUIT\r\n")
        assert [(await talk.reply())[:3] for _ in range(3)] == ["250", "250", "221"]
    heads = await inbox.received()
    assert sorted(head.recipient for head in heads) == ["b@example.com", "c@example.com"]
    async with inbox.database.organization(inbox.organization_id) as session:
        assert (await sandbox.get_message(session, heads[0].id))[1] == b"Subject: x\r\n\r\n.dot\r\n"


@pytest.mark.parametrize(
    "raw", [b".\r\n", b"\r\n.\r\n", b"Subject: \xff\x00 =?utf-8?b?!!?=\r\nX-LeadStats-Delivery: x\r\n\r\n\x00\r\n.\r\n"]
)
async def test_strange_messages_are_kept_as_they_are(inbox: RunningInbox, raw: bytes) -> None:
    async with Talk(inbox.settings) as talk:
        await talk.log_in(inbox)
        for command in ("MAIL FROM:<>", "RCPT TO:<b@example.com>"):
            assert (await talk.say(command)).startswith("250")
        await talk.say("DATA")
        talk.writer.write(raw)
        assert (await talk.reply()).startswith("250")
    assert len(await inbox.received()) == 1


async def test_an_endless_line_and_nonsense_end_nothing_but_themselves(inbox: RunningInbox) -> None:
    async with Talk(inbox.settings) as talk:
        assert (await talk.say("HELLO?")).startswith("500")
        talk.writer.write(b"x" * 20_000)
        assert await asyncio.wait_for(talk.reader.read(), 60) == b""
    async with Talk(inbox.settings) as talk:
        assert (await talk.say("NOOP")).startswith("250")


def received() -> ReceivedMessage:
    return ReceivedMessage(new_id(), "a@example.com", "b@example.com", "", {}, b"x", None)


async def running(database: Database, organization_id: object, messages: Sequence[ReceivedMessage]) -> list[object]:
    taking = Recorder(database)
    task = asyncio.create_task(taking.run())
    try:
        return await asyncio.gather(*(taking.store(organization_id, m) for m in messages), return_exceptions=True)  # type: ignore[arg-type]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_database_that_is_away_means_not_stored() -> None:
    database = Database("postgresql://nobody:x@127.0.0.1:1/none")
    [told] = await running(database, new_id(), [received()])
    assert isinstance(told, NotStored)


async def test_a_commit_in_doubt_is_settled_by_storing_again(inbox: RunningInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks right after the commit: the sender hears yes, and each message is there once."""
    original = sandbox.store_messages
    broken: list[bool] = []

    async def commit_and_lose_the_connection(session: OrganizationSession, messages: Sequence[ReceivedMessage]) -> None:
        await original(session, messages)
        if not broken:
            broken.append(True)
            driver = await session.driver()
            await driver.commit()
            await driver.close()

    monkeypatch.setattr(sandbox, "store_messages", commit_and_lose_the_connection)
    assert await running(inbox.database, inbox.organization_id, [received(), received()]) == [None, None]
    assert broken and len(await inbox.received()) == 2


async def test_a_commit_in_doubt_for_too_long_is_uncertain(inbox: RunningInbox, monkeypatch: pytest.MonkeyPatch) -> None:
    original = sandbox.store_messages

    async def lose_the_connection(session: OrganizationSession, messages: Sequence[ReceivedMessage]) -> None:
        await original(session, messages)
        await (await session.driver()).close()  # so the commit itself fails

    monkeypatch.setattr(recorder, "CERTAINTY_SECONDS", 0.5)
    monkeypatch.setattr(sandbox, "store_messages", lose_the_connection)
    [told] = await running(inbox.database, inbox.organization_id, [received()])
    assert isinstance(told, Uncertain)


def test_the_certificate_is_made_once_and_its_key_is_private(settings: Settings) -> None:
    server_tls(settings)
    path = sandbox_certificate(settings)
    first = path.read_bytes()
    server_tls(settings)
    assert path.read_bytes() == first
    assert path.with_name("smtp-key.pem").stat().st_mode & 0o777 == 0o600
    server_tls(settings.model_copy(update={"sandbox_smtp_host": "inbox.example"}))
    assert path.read_bytes() != first
    assert isinstance(Destinations(settings).tls(settings.sandbox_smtp_host, settings.sandbox_smtp_port), ssl.SSLContext)
