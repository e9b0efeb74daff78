"""Sending by SMTP, one phase at a time, so that "certainly not sent" and "unknown" are told apart.

A refusal with a code, and anything that goes wrong before the message's bytes are written, was certainly not accepted.
Anything that goes wrong from then until the server's answer is unknown.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Self

import aiosmtplib

from activities.contracts.sending import SendOutcome
from activities.providers import email_message
from activities.providers.destination import Destinations
from activities.providers.port import ABORTED, OutgoingMessage, ProviderAnswer, Transmit
from activities.providers.smtp_link import COMMAND_SECONDS, LinkFailed, SmtpLink, open_link
from activities.providers.smtp_reply import SOON, Phase, Reply, meaning
from models.domain.connection import SmtpConfig
from models.sandbox_account import at_sandbox_now
from models.settings import Settings
from models.store.connections import SendingConnection

MESSAGES_PER_LINK = 100
IDLE_SECONDS = 30.0
ANSWER_SECONDS = 600.0  # RFC 5321 section 4.5.3.2.6: a server may take ten minutes after the dot

_QUEUE_ID = re.compile(r"[A-Za-z0-9._@<>=-]{6,100}$")
_LEADING_DOT = re.compile(rb"(?m)^\.")
_GONE = ProviderAnswer(SendOutcome.TRANSIENT, "connection_lost", SOON)


@dataclass(frozen=True)
class SmtpAccount:
    """Where to connect, and as whom."""

    config: SmtpConfig
    password: str | None

    @classmethod
    def of(cls, connection: SendingConnection, settings: Settings) -> Self:
        config = SmtpConfig.model_validate(connection.config)
        return cls(at_sandbox_now(config, connection.organization_id, settings), connection.secret)


class SmtpProvider:
    """One connection's pool of links. Opens as many as there are messages in the air; the caller bounds that."""

    def __init__(self, account: SmtpAccount, destinations: Destinations, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._account = account
        self._destinations = destinations
        self._answer_seconds = answer_seconds
        self._idle: list[SmtpLink] = []
        self._closed = False
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(self, message: OutgoingMessage, transmit: Transmit) -> ProviderAnswer:
        """See `Provider.send`. Opens a second link only when a pooled one died before it accepted anything."""
        try:
            raw = email_message.build(message)
            recipient = email_message.recipient_address(message)
            sender = email_message.wire_address(message.sender.address)
        except email_message.UnsubscribeMissing:
            raise
        except email_message.BadRecipient as error:
            return ProviderAnswer(SendOutcome.RECIPIENT_PERMANENT, error.reason)
        except email_message.MalformedMail as error:
            return ProviderAnswer(SendOutcome.CONTENT_PERMANENT, error.reason)
        try:
            link = self._take() or await open_link(self._account.config, self._account.password, self._destinations)
            answer = await self._mail(link, sender, len(raw))
            if answer is _GONE and link.used:
                link = await open_link(self._account.config, self._account.password, self._destinations)
                answer = await self._mail(link, sender, len(raw))
        except LinkFailed as failure:
            return failure.answer
        return answer or await self._hand_over(link, recipient, raw, transmit)

    async def _mail(self, link: SmtpLink, sender: str, size: int) -> ProviderAnswer | None:
        """None when the server takes this sender; `_GONE` when the link turned out dead."""
        options = [b"SIZE=%d" % size] if link.client.supports_extension("size") else []
        answer = await self._command(link, "mail", b"MAIL", f"FROM:<{sender}>".encode(), *options)
        # A server that closes an idle link says 421 first.
        return _GONE if answer is not None and answer.reason == "mail_421" and link.used else answer

    async def _hand_over(self, link: SmtpLink, recipient: str, raw: bytes, transmit: Transmit) -> ProviderAnswer:
        answer = await self._command(link, "rcpt", b"RCPT", f"TO:<{recipient}>".encode())
        if answer is not None:
            return answer
        if not await self._allowed(link, transmit):
            await self._reset(link)
            return ProviderAnswer(ABORTED)
        answer = await self._command(link, "data", b"DATA", expect=354)
        if answer is not None:
            return answer
        if not await self._allowed(link, transmit):  # a server may take up to COMMAND_SECONDS to say 354
            link.drop()  # it waits for a message now, and has none: whatever it was told would be one
            return ProviderAnswer(ABORTED)
        return await self._body(link, raw)

    async def _allowed(self, link: SmtpLink, transmit: Transmit) -> bool:
        try:
            return await transmit()
        except BaseException:
            link.drop()
            raise

    async def _command(self, link: SmtpLink, phase: Phase, *words: bytes, expect: int = 250) -> ProviderAnswer | None:
        """None when the server agrees. Otherwise the link is reset or dropped."""
        try:
            response = await link.client.execute_command(*words, timeout=COMMAND_SECONDS)
        except (aiosmtplib.SMTPException, OSError):
            link.drop()
            return _GONE
        except BaseException:
            link.drop()
            raise
        if response.code == expect or (phase == "rcpt" and response.code == 251):
            return None
        if response.code == 421 or not 400 <= response.code < 600:
            link.drop()
        else:
            await self._reset(link)
        return meaning(phase, Reply.of(response.code, response.message))

    async def _body(self, link: SmtpLink, raw: bytes) -> ProviderAnswer:
        """From here on only an answer tells."""
        protocol = link.client.protocol
        try:
            if protocol is None or not link.client.is_connected:  # lost while the fence was asked
                return _GONE
            protocol.write(_LEADING_DOT.sub(b"..", raw) + (b".\r\n" if raw.endswith(b"\r\n") else b"\r\n.\r\n"))
            response = await protocol.read_response(timeout=self._answer_seconds)
        except aiosmtplib.SMTPTimeoutError:
            link.drop()
            return ProviderAnswer(SendOutcome.UNKNOWN, "no_answer")
        except (aiosmtplib.SMTPException, OSError):
            link.drop()
            return ProviderAnswer(SendOutcome.UNKNOWN, "connection_lost_after_data")
        except BaseException:
            link.drop()
            raise
        if response.code == 250:
            self._release(link)
            found = _QUEUE_ID.search(response.message.strip())
            return ProviderAnswer(SendOutcome.ACCEPTED, provider_message_id=found[0] if found else None)
        if not 400 <= response.code < 600:
            link.drop()
            return ProviderAnswer(SendOutcome.UNKNOWN, f"answer_{response.code}")
        await self._reset(link)
        return meaning("body", Reply.of(response.code, response.message))

    async def _reset(self, link: SmtpLink) -> None:
        """The link is ready for another message, or gone."""
        try:
            response = await link.client.execute_command(b"RSET", timeout=COMMAND_SECONDS)
        except (aiosmtplib.SMTPException, OSError):
            link.drop()
            return
        except BaseException:
            link.drop()
            raise
        if response.code == 250:
            self._release(link)
        else:
            link.drop()

    def _take(self) -> SmtpLink | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            link = self._idle.pop()
            if link.client.is_connected and now - link.idle_since < IDLE_SECONDS:
                return link
            link.drop()
        return None

    def _release(self, link: SmtpLink) -> None:
        loop = asyncio.get_running_loop()
        link.used += 1
        link.idle_since = loop.time()
        if self._closed or link.used >= MESSAGES_PER_LINK or not link.client.is_connected:
            link.leave()
            return
        self._idle.append(link)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Links that nobody needed for a while are closed, so that no server holds them for us."""
        loop = asyncio.get_running_loop()
        stale = [link for link in self._idle if loop.time() - link.idle_since >= IDLE_SECONDS]
        self._idle = [link for link in self._idle if link not in stale]
        for link in stale:
            link.leave()
        self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep) if self._idle else None

    async def close(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for link in self._idle:
            link.drop()
        self._idle.clear()


async def check(account: SmtpAccount, destinations: Destinations) -> ProviderAnswer:
    """Connects and logs in, sends nothing. ACCEPTED when a message could be handed over now."""
    try:
        link = await open_link(account.config, account.password, destinations)
    except LinkFailed as failure:
        return failure.answer
    link.leave()
    return ProviderAnswer(SendOutcome.ACCEPTED)
