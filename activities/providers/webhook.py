"""Calling addresses that customers chose: one request, one bounded answer, and never into our own network.

Every connection goes to an address that `Destinations` has judged. There are no redirects, no cookies and no proxies; certificates
are checked against the name.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore2
import httpx2

from activities.providers.destination import Blocked, Destinations, Unreachable, public_tls

MAX_ANSWER = 256 * 1024  # bytes
LONGEST_RETRY_AFTER = timedelta(hours=6)
KEEP_ALIVE_SECONDS = 15.0


@dataclass(frozen=True)
class Reply:
    """What the other side said. `body` None: it is larger than `MAX_ANSWER`, and was not read to its end."""

    status: int
    body: bytes | None
    retry_after: timedelta | None = None


class CallFailed(Exception):
    """There was no answer. `reason` is a code; the call may have been heard all the same, unless it is `permanent`."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent


class Webhooks:
    """Built once per process, closed with it. Safe to use by many tasks at once; keeps connections for their next call."""

    def __init__(self, destinations: Destinations, tls: ssl.SSLContext | None = None) -> None:
        self._transport = _Transport(destinations, tls or public_tls())

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: timedelta) -> Reply:
        """The answer to one POST. The timeout is over all of it: resolving, connecting, and the answer's last byte.

        Raises:
            CallFailed: see there.
        """
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await self._exchange(url, headers, body, timeout)
        except (TimeoutError, httpx2.TimeoutException):
            raise CallFailed("webhook_timeout") from None
        except Blocked:
            raise CallFailed("blocked_destination", permanent=True) from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, UnicodeError):
            raise CallFailed("malformed_request", permanent=True) from None
        except (httpx2.TransportError, OSError) as error:
            raise CallFailed(_code(error)) from None

    async def _exchange(self, url: str, headers: Mapping[str, str], body: bytes, timeout: timedelta) -> Reply:
        seconds = timeout.total_seconds()
        limits = {"timeout": {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}}
        ours = {"Accept-Encoding": "identity", "User-Agent": "LeadStats"}
        # Not by a client: that keeps cookies, and so would carry one organization's to another's call.
        request = httpx2.Request("POST", url, headers={**headers, **ours}, content=body, extensions=limits)
        response = await self._transport.handle_async_request(request)
        try:
            return Reply(response.status_code, await _bounded(response), _retry_after(response.headers.get("retry-after")))
        finally:
            await response.aclose()

    async def close(self) -> None:
        await self._transport.aclose()


async def _bounded(response: httpx2.Response) -> bytes | None:
    """As it came: what is compressed against our wish stays so, or a small answer could become a large one."""
    found = bytearray()
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    async for chunk in response.stream:
        found += chunk
        if len(found) > MAX_ANSWER:
            return None
    return bytes(found)


def _retry_after(value: str | None) -> timedelta | None:
    """How long the other side wants to be left alone: seconds or a date. None: it does not say, or nothing sensible."""
    if value is None:
        return None
    try:
        wait = _seconds(value) if value.isdigit() else parsedate_to_datetime(value) - datetime.now(UTC)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_RETRY_AFTER)


def _seconds(digits: str) -> timedelta:
    """However many digits there are: what no timedelta or int can be read from is long enough as well."""
    significant = digits.lstrip("0")
    return LONGEST_RETRY_AFTER if len(significant) > 9 else timedelta(seconds=int(significant or "0"))


def _code(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return "webhook_certificate_invalid"
            case Unreachable():
                return "webhook_unreachable"
            case ssl.SSLError():
                return "webhook_tls_failed"
        cause = cause.__cause__ or cause.__context__
    return "webhook_unreachable" if isinstance(error, httpx2.ConnectError) else "webhook_connection_lost"


class _Transport(httpx2.AsyncHTTPTransport):
    """The library's, over connections that the guard opens. Its own `__init__` is not called: if the library keeps its pool under
    another name one day, no request leaves at all."""

    def __init__(self, destinations: Destinations, tls: ssl.SSLContext) -> None:
        # Callers bound how many calls are in the air: a queue in here would use up their timeouts.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=None,
            max_keepalive_connections=50,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
            network_backend=_Guard(destinations),
        )


class _Guard(httpcore2.AsyncNetworkBackend):
    """Resolves once, judges every address, and connects to a judged address. The name is still what TLS checks."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._destinations.addresses(host, port)
        each = None if timeout is None else timeout / max(len(addresses), 1)
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, each, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        raise httpcore2.ConnectError("no address answers")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        raise Blocked(path)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)
