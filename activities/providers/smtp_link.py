"""One authenticated conversation with an SMTP server."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

import aiosmtplib

from activities.contracts.sending import SendOutcome
from activities.providers.destination import Blocked, Destinations, Unreachable
from activities.providers.port import ProviderAnswer, broken
from activities.providers.smtp_reply import LATER, SOON, Phase, Reply, meaning
from models.domain.connection import SmtpConfig

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 60.0

_leaving: set[asyncio.Task[None]] = set()


class LinkFailed(Exception):
    """No link; `answer` says why. Certainly nothing was sent."""

    def __init__(self, answer: ProviderAnswer) -> None:
        super().__init__(answer.reason)
        self.answer = answer


@dataclass(eq=False)
class SmtpLink:
    client: aiosmtplib.SMTP
    used: int = 0  # messages
    idle_since: float = 0.0  # the loop's clock

    def drop(self) -> None:
        """Closed without a word."""
        self.client.close()

    def leave(self) -> None:
        """Closed with QUIT, in the background."""
        task = asyncio.get_running_loop().create_task(self._quit())
        _leaving.add(task)
        task.add_done_callback(_leaving.discard)

    async def _quit(self) -> None:
        try:
            await self.client.quit(timeout=2)
        except (aiosmtplib.SMTPException, OSError):
            pass
        finally:
            self.client.close()


async def open_link(config: SmtpConfig, password: str | None, destinations: Destinations) -> SmtpLink:
    """A link that has greeted, encrypted and logged in.

    Raises:
        LinkFailed: with the outcome for the message that wanted it.
    """
    client: aiosmtplib.SMTP | None = None
    try:
        client = await _connect(config, destinations)
        await _encrypt(client, config)
        await _log_in(client, config, password)
    except BaseException as error:
        if client is not None:
            client.close()
        _explain(error)
    return SmtpLink(client)


async def _connect(config: SmtpConfig, destinations: Destinations) -> aiosmtplib.SMTP:
    tls = destinations.tls(config.host, config.port) if config.security != "none" else None
    sock = await destinations.open(config.host, config.port, CONNECT_SECONDS)
    client = aiosmtplib.SMTP(
        hostname=config.host,
        sock=sock,
        use_tls=config.security == "tls",
        start_tls=False,
        tls_context=tls,
        timeout=COMMAND_SECONDS,
        local_hostname="[127.0.0.1]",
    )
    try:
        await client.connect()
    except BaseException:
        sock.close()
        raise
    return client


async def _encrypt(client: aiosmtplib.SMTP, config: SmtpConfig) -> None:
    await client.ehlo()
    if config.security != "starttls":
        return
    if not client.supports_extension("starttls"):
        raise LinkFailed(broken("starttls_not_offered"))
    try:
        await client.starttls()
    except aiosmtplib.SMTPResponseException as error:
        raise LinkFailed(_refusal("tls", error)) from None
    await client.ehlo()


async def _log_in(client: aiosmtplib.SMTP, config: SmtpConfig, password: str | None) -> None:
    if config.username is None:
        return
    offered = client.supported_auth_methods
    log_in = next((how for name, how in _methods(client).items() if name in offered), None)
    if log_in is None:
        raise LinkFailed(broken("authentication_not_offered"))
    try:
        # Not `client.login`: that tries every method in turn, and three wrong passwords at once lock accounts.
        await log_in(config.username, password or "")
    except aiosmtplib.SMTPResponseException as error:
        raise LinkFailed(_refusal("auth", error)) from None


def _methods(client: aiosmtplib.SMTP) -> dict[str, Callable[[str, str], Awaitable[object]]]:
    return {"plain": client.auth_plain, "login": client.auth_login, "cram-md5": client.auth_crammd5}


def _refusal(phase: Phase, error: aiosmtplib.SMTPResponseException) -> ProviderAnswer:
    return meaning(phase, Reply.of(error.code, error.message))


def _explain(error: BaseException) -> NoReturn:
    """Raises LinkFailed for every fault of the network or the server, and `error` itself for anything else."""
    match error:
        case LinkFailed():
            raise error
        case Blocked():
            answer = broken("address_not_allowed")
        case ssl.SSLCertVerificationError():
            answer = broken("certificate_invalid")
        case Unreachable():
            answer = ProviderAnswer(SendOutcome.TRANSIENT, "unreachable", SOON)
        case aiosmtplib.SMTPConnectError() if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            answer = broken("certificate_invalid")
        case aiosmtplib.SMTPResponseException():
            answer = _refusal("connect", error)
        case aiosmtplib.SMTPTimeoutError() | TimeoutError():
            answer = ProviderAnswer(SendOutcome.TRANSIENT, "connect_timeout", LATER)
        case ssl.SSLError():
            answer = ProviderAnswer(SendOutcome.TRANSIENT, "tls_failed", LATER)
        case aiosmtplib.SMTPException() | OSError():
            answer = ProviderAnswer(SendOutcome.TRANSIENT, "connection_lost", SOON)
        case _:
            raise error
    raise LinkFailed(answer) from None
