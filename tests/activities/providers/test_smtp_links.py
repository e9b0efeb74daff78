"""Links that break at every step, against a server that does as it is told and counts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from activities.contracts.sending import SendOutcome
from activities.providers import smtp
from activities.providers.destination import Destinations
from activities.providers.port import ABORTED
from activities.providers.smtp import SmtpAccount, SmtpProvider
from activities.providers.smtp_link import SmtpLink, open_link
from models.domain.connection import Security, SmtpConfig
from models.settings import Settings
from tests.inbox import Fence, email

Behaviour = Callable[[int, str], str | None]  # (connection number, command) → reply; None hangs up


@dataclass
class ScriptedServer:
    behaviour: Behaviour
    port: int = 0
    connections: int = 0
    messages: list[bytes] = field(default_factory=list)
    hang_up: Callable[[], None] = lambda: None  # of the latest connection

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.hang_up = writer.close
        number = self.connections
        writer.write(b"220 ready\r\n")
        while line := await reader.readline():
            command = line.decode().strip().upper()
            reply = self.behaviour(number, command)
            if reply is None:
                break
            writer.write(reply.encode() + b"\r\n")
            if reply.startswith("354"):
                try:
                    self.messages.append(await reader.readuntil(b"\r\n.\r\n"))
                except asyncio.IncompleteReadError:
                    break
                writer.write(b"250 2.0.0 queued as ABC123\r\n")
        writer.close()


@asynccontextmanager
async def scripted(behaviour: Behaviour) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(behaviour)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


def provider_for(server: ScriptedServer, settings: Settings, security: Security = "none") -> SmtpProvider:
    allowed = settings.model_copy(update={"private_destinations": f"127.0.0.1:{server.port}"})
    config = SmtpConfig(host="127.0.0.1", port=server.port, security=security, sender_address="news@example.com")
    return SmtpProvider(SmtpAccount(config, None), Destinations(allowed), answer_seconds=60)


def agreeable(command: str) -> str:
    return "354 go on" if command == "DATA" else "221 bye" if command == "QUIT" else "250 OK"


async def test_a_pooled_link_that_dies_at_the_next_sender_is_replaced_once(settings: Settings) -> None:
    mails: list[int] = []

    def dies_at_its_second_mail(number: int, command: str) -> str | None:
        if command.startswith("MAIL"):
            mails.append(number)
            if mails == [1, 1]:
                return None
        return agreeable(command)

    async with scripted(dies_at_its_second_mail) as server:
        provider = provider_for(server, settings)
        fences = [Fence(), Fence()]
        outcomes = [(await provider.send(email(), fence)).outcome for fence in fences]
        await provider.close()
    assert outcomes == [SendOutcome.ACCEPTED, SendOutcome.ACCEPTED]
    assert (server.connections, len(server.messages), [fence.asked for fence in fences]) == (2, 2, [2, 2])


async def test_a_fresh_link_that_dies_is_not_replaced(settings: Settings) -> None:
    async with scripted(lambda _, command: None if command.startswith("MAIL") else "250 OK") as server:
        answer = await provider_for(server, settings).send(email(), Fence())
    assert (answer.outcome, answer.reason, answer.retry_after) == (SendOutcome.TRANSIENT, "connection_lost", timedelta(seconds=10))
    assert server.connections == 1


async def test_a_drop_at_the_recipient_is_certainly_not_sent(settings: Settings) -> None:
    async with scripted(lambda _, command: None if command.startswith("RCPT") else agreeable(command)) as server:
        fence = Fence()
        answer = await provider_for(server, settings).send(email(), fence)
    assert (answer.outcome, answer.reason, fence.asked, server.connections) == (SendOutcome.TRANSIENT, "connection_lost", 0, 1)


async def test_a_drop_before_the_go_ahead_is_certainly_not_sent(settings: Settings) -> None:
    async with scripted(lambda _, command: None if command == "DATA" else "250 OK") as server:
        fence = Fence()
        answer = await provider_for(server, settings).send(email(), fence)
    assert (answer.outcome, answer.reason, fence.asked, server.connections) == (SendOutcome.TRANSIENT, "connection_lost", 1, 1)


async def test_a_fence_that_closes_before_the_go_ahead_stops_the_message_and_leaves_the_link(settings: Settings) -> None:
    """The server may take a minute for its 354; what it has then promised to take ends with the link."""
    closing = Fence()

    def slow(_: int, command: str) -> str | None:
        closing.answer = command != "DATA"
        return agreeable(command)

    async with scripted(slow) as server:
        provider = provider_for(server, settings)
        assert (await provider.send(email(), closing)).outcome == ABORTED
        assert (closing.asked, server.messages, provider._idle) == (2, [], [])
        closing = Fence()
        server.behaviour = lambda _, command: agreeable(command)
        assert (await provider.send(email(), closing)).outcome is SendOutcome.ACCEPTED
        await provider.close()
    assert (server.connections, len(server.messages)) == (2, 1)


async def test_a_link_lost_before_the_first_byte_is_certainly_not_sent(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(lambda _, command: agreeable(command)) as server:
        provider = provider_for(server, settings)
        fence = Fence()

        async def lost_meanwhile() -> bool:
            allowed = await fence()
            if fence.asked == 2:
                server.hang_up()
                while links[0].client.is_connected:
                    await asyncio.sleep(0.01)
            return allowed

        links: list[SmtpLink] = []

        async def opened(*given: Any) -> SmtpLink:
            links.append(await open_link(*given))
            return links[0]

        monkeypatch.setattr(smtp, "open_link", opened)
        answer = await provider.send(email(), lost_meanwhile)
    assert (answer.outcome, answer.reason) == (SendOutcome.TRANSIENT, "connection_lost")


async def test_a_server_without_encryption_is_refused_when_it_is_required(settings: Settings) -> None:
    async with scripted(lambda _, command: agreeable(command)) as server:
        answer = await provider_for(server, settings, "starttls").send(email(), Fence())
    assert (answer.outcome, answer.reason) == (SendOutcome.CONNECTION_BROKEN, "starttls_not_offered")
    assert server.messages == []


async def test_the_servers_own_name_for_the_message_is_kept(settings: Settings) -> None:
    async with scripted(lambda _, command: agreeable(command)) as server:
        provider = provider_for(server, settings)
        assert (await provider.send(email(), Fence())).provider_message_id == "ABC123"
        await provider.close()


async def test_a_link_is_left_after_a_hundred_messages(settings: Settings) -> None:
    async with scripted(lambda _, command: agreeable(command)) as server:
        provider = provider_for(server, settings)
        for _ in range(smtp.MESSAGES_PER_LINK + 1):
            await provider.send(email(), Fence())
        await provider.close()
    assert server.connections == 2


async def test_an_idle_link_is_left_in_time(settings: Settings) -> None:
    async with scripted(lambda _, command: agreeable(command)) as server:
        provider = provider_for(server, settings)
        await provider.send(email(), Fence())
        provider._idle[0].idle_since -= smtp.IDLE_SECONDS + 1
        await provider.send(email(), Fence())
        await provider.close()
    assert server.connections == 2
