"""One SMTP conversation of the sandbox's inbox (RFC 5321, AUTH by RFC 4954, STARTTLS by RFC 3207, pipelining)."""

import asyncio
import base64
import binascii
import hmac
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser
from email.policy import compat32
from uuid import UUID

from api.sandbox.faults import Faults
from api.sandbox.recorder import NotStored, Recorder, Uncertain
from api.sandbox.wire import BODY_LIMIT, Hangup, TooLarge, Wire
from models.sandbox_account import DISCARD
from models.store.sandbox import InjectedFault, ReceivedMessage
from models.tables.base import new_id

IDLE_SECONDS = 300.0
_PATH = re.compile(r"(?i)(?:FROM|TO):\s*<([^<>\s]{0,320})>((?:\s+\S+)*)\s*")
_headers = BytesHeaderParser(policy=compat32)


class _End(Exception):
    """The conversation is over."""


@dataclass(frozen=True)
class Inbox:
    """What all conversations share. `password_of` gives the password of an organization."""

    tls: ssl.SSLContext
    recorder: Recorder
    faults: Faults
    password_of: Callable[[UUID], str]


class Conversation:
    def __init__(self, wire: Wire, inbox: Inbox) -> None:
        self._wire = wire
        self._inbox = inbox
        self._encrypted = False
        self._organization: UUID | None = None
        self._discards = False
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def run(self) -> None:
        """Talks until either side has had enough."""
        try:
            self._wire.say("220 sandbox.leadstats ESMTP")
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    line = await self._wire.line()
                await self._obey(line.decode("utf-8", "replace"))
        except (_End, Hangup, TimeoutError, ConnectionError):
            pass
        finally:
            self._wire.close()

    async def _obey(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "EHLO" | "HELO":
                self._greet(verb.upper())
            case "STARTTLS":
                await self._encrypt()
            case "AUTH":
                await self._authenticate(rest)
            case "MAIL":
                await self._mail(rest)
            case "RCPT":
                await self._rcpt(rest)
            case "DATA":
                await self._data()
            case "RSET":
                self._forget()
                self._wire.say("250 2.0.0 OK")
            case "NOOP":
                self._wire.say("250 2.0.0 OK")
            case "QUIT":
                self._wire.say("221 2.0.0 Bye")
                raise _End
            case _:
                self._wire.say("500 5.5.1 Command not recognized")

    def _greet(self, verb: str) -> None:
        self._forget()
        if verb == "HELO":
            self._wire.say("250 sandbox.leadstats")
            return
        extensions = ["PIPELINING", f"SIZE {BODY_LIMIT}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        extensions.append("AUTH PLAIN LOGIN" if self._encrypted else "STARTTLS")
        lines = ["sandbox.leadstats", *extensions]
        self._wire.say("\r\n".join(f"250{' ' if line is lines[-1] else '-'}{line}" for line in lines))

    async def _encrypt(self) -> None:
        if self._encrypted:
            self._wire.say("503 5.5.1 Already encrypted")
            return
        self._wire.say("220 2.0.0 Go ahead")
        await self._wire.start_tls(self._inbox.tls)
        self._encrypted = True
        self._forget()

    async def _authenticate(self, rest: str) -> None:
        if not self._encrypted:
            self._wire.say("538 5.7.11 Encrypt first: STARTTLS")
            return
        if self._organization is not None:
            self._wire.say("503 5.5.1 Already authenticated")
            return
        mechanism, _, initial = rest.partition(" ")
        try:
            match mechanism.upper():
                case "PLAIN":
                    _, username, password = (_decode(initial) if initial else await self._ask("")).split("\0")
                case "LOGIN":
                    username = _decode(initial) if initial else await self._ask("VXNlcm5hbWU6")
                    password = await self._ask("UGFzc3dvcmQ6")
                case _:
                    self._wire.say("504 5.5.4 Use PLAIN or LOGIN")
                    return
        except ValueError:
            self._wire.say("501 5.5.2 Malformed credentials")
            return
        await self._admit(username, password)

    async def _ask(self, challenge: str) -> str:
        self._wire.say(f"334 {challenge}")
        return _decode((await self._wire.line()).decode("ascii", "replace"))

    async def _admit(self, username: str, password: str) -> None:
        try:
            organization_id = UUID(username.removesuffix(DISCARD))
        except ValueError:
            self._wire.say("535 5.7.8 Authentication failed")
            return
        if not hmac.compare_digest(password.encode(), self._inbox.password_of(organization_id).encode()):
            self._wire.say("535 5.7.8 Authentication failed")
            return
        # Only now it is known whose faults apply, so a fault of the phase `connect` strikes here.
        for phase, refusal in (("connect", "421 4.3.2 Service not available"), ("auth", "535 5.7.8 Authentication failed")):
            fault = await self._inbox.faults.strike(organization_id, phase)
            if fault is not None and await self._fail(fault, refusal):
                if phase == "connect":
                    raise _End
                return
        self._organization, self._discards = organization_id, username.endswith(DISCARD)
        self._wire.say("235 2.7.0 Authenticated")

    async def _mail(self, rest: str) -> None:
        if self._organization is None:
            self._wire.say("530 5.7.0 Authenticate first")
            return
        found = _PATH.fullmatch(rest)
        if found is None or self._sender is not None:
            self._wire.say("501 5.5.4 Syntax: MAIL FROM:<address>" if found is None else "503 5.5.1 One sender at a time")
            return
        fault = await self._inbox.faults.strike(self._organization, "mail", found[1])
        if fault is not None and await self._fail(fault, "550 5.7.1 Sender refused"):
            return
        self._sender = found[1]
        self._wire.say("250 2.1.0 OK")

    async def _rcpt(self, rest: str) -> None:
        found = _PATH.fullmatch(rest)
        if self._organization is None or self._sender is None or found is None or not found[1]:
            self._wire.say("503 5.5.1 MAIL first" if self._sender is None else "501 5.5.4 Syntax: RCPT TO:<address>")
            return
        fault = await self._inbox.faults.strike(self._organization, "rcpt", found[1])
        if fault is not None and await self._fail(fault, "550 5.1.1 No such mailbox"):
            return
        self._recipients.append(found[1])
        self._wire.say("250 2.1.5 OK")

    async def _data(self) -> None:
        if self._organization is None or not self._recipients or self._sender is None:
            self._wire.say("503 5.5.1 RCPT first")
            return
        fault = await self._inbox.faults.strike(self._organization, "data", self._recipients[0])
        self._wire.say("354 End with <CRLF>.<CRLF>")
        if fault is not None and fault.action == "drop_before_dot":
            await self._wire.some()
            self._wire.drop()
            raise _End
        try:
            body = await self._wire.body()
        except TooLarge:
            self._forget()
            self._wire.say("552 5.3.4 Message too large")
            return
        if fault is not None and fault.action != "drop_after_dot" and await self._fail(fault, "554 5.7.1 Message refused"):
            self._forget()
            return
        await self._keep(self._organization, self._sender, body, silent=fault is not None and fault.action == "drop_after_dot")

    async def _keep(self, organization_id: UUID, sender: str, body: bytes, *, silent: bool) -> None:
        recipients = list(self._recipients)
        self._forget()
        try:
            identifier = new_id()
            if self._discards:
                self._inbox.recorder.discard(organization_id)
            else:
                messages = [_received(identifier if n == 0 else new_id(), sender, to, body) for n, to in enumerate(recipients)]
                await asyncio.gather(*(self._inbox.recorder.store(organization_id, message) for message in messages))
        except NotStored:
            self._wire.say("451 4.3.0 The inbox cannot store messages now")
            return
        except Uncertain:
            silent = True
        if silent:
            self._wire.drop()
            raise _End
        self._wire.say(f"250 2.0.0 OK queued as {identifier}")

    async def _fail(self, fault: InjectedFault, refusal: str) -> bool:
        """Does as the fault says. True when that was the answer, False when the command goes on after a delay."""
        if fault.delay_ms:
            await asyncio.sleep(fault.delay_ms / 1000)
        match fault.action:
            case "delay":
                return False
            case "refuse":
                self._wire.say(f"{fault.code} {fault.message or 'Refused by a sandbox fault'}" if fault.code else refusal)
            case "reply":
                self._wire.say(f"{fault.code or 451} {fault.message or 'Told so by a sandbox fault'}")
            case _:
                self._wire.drop()
                raise _End
        return True

    def _forget(self) -> None:
        self._sender = None
        self._recipients = []


def _decode(encoded: str) -> str:
    """Raises ValueError."""
    if encoded == "*":
        raise ValueError("cancelled")
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except binascii.Error as error:
        raise ValueError from error


def _received(identifier: UUID, sender: str, recipient: str, raw: bytes) -> ReceivedMessage:
    parsed = _headers.parsebytes(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    headers: dict[str, str] = {}
    for name, value in parsed.items():
        headers.setdefault(_clean(name), _clean(str(value)))
    try:
        delivery_id = UUID(headers.get("X-LeadStats-Delivery", "").strip())
    except ValueError:
        delivery_id = None
    subject = next((value for name, value in headers.items() if name.lower() == "subject"), "")
    return ReceivedMessage(identifier, sender, recipient, _readable(subject), headers, raw, delivery_id)


def _readable(subject: str) -> str:
    if "=?" not in subject:
        return subject
    try:
        return _clean(str(make_header(decode_header(subject))))
    except (ValueError, LookupError, HeaderParseError):
        return subject


def _clean(value: str) -> str:
    """PostgreSQL takes neither NUL nor lone surrogates."""
    return value.replace("\0", "").encode("utf-8", "replace").decode().replace("\r\n", "")
