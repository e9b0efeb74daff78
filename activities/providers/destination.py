"""Where a connection may lead: hosts chosen by customers must not reach into our own network.

The name is resolved once, every address is judged, and the socket goes to a judged address, so that a name that changes its
answer gains nothing. The certificate is still checked against the name.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.settings import Settings, parse_destinations

RESOLVE_SECONDS = 10.0
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# `is_global` of Python 3.11 calls these global, or they reach an address that is not: translation prefixes, retired and
# special ranges, and the cloud's own 168.63.129.16.
_DENIED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32",
        "fec0::/10", "2620:4f:8000::/48", "3fff::/20", "5f00::/16",
        "192.88.99.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "168.63.129.16/32", "100.64.0.0/10",
    )
)  # fmt: skip


class Unreachable(OSError):
    """The name does not resolve, or no address answers: try later."""


class Blocked(Exception):
    """The host leads into a private network, which the settings do not allow."""


def is_public(address: _Address) -> bool:
    """May a customer's connection go to this address?"""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if _tunnelled(address):
            return False
    if address.is_multicast or not address.is_global:
        return False
    return not any(address in network for network in _DENIED if network.version == address.version)


def _tunnelled(address: ipaddress.IPv6Address) -> bool:
    """ISATAP: under any prefix the last four bytes are the IPv4 address that the packet really goes to."""
    return address.packed[8:12] in (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")


def sandbox_certificate(settings: Settings) -> Path:
    """The sandbox's self-signed certificate: trusted for the sandbox's own host and port, and nowhere else."""
    return settings.state_directory / "sandbox" / "smtp-certificate.pem"


class Destinations:
    """Opens sockets to where connections may lead."""

    def __init__(self, settings: Settings) -> None:
        self._sandbox = (settings.sandbox_smtp_host, settings.sandbox_smtp_port)
        self._certificate = sandbox_certificate(settings)
        self._private = {self._sandbox, *parse_destinations(settings.private_destinations)}

    async def open(self, host: str, port: int, timeout: float) -> socket.socket:
        """A connected, non-blocking socket.

        Raises:
            Blocked: as `addresses`.
            Unreachable: likewise, or no address answered within `timeout` seconds each.
        """
        for family, _, where in await self._judged(host, port):
            try:
                return await _connect(family, where, timeout)
            except OSError:
                continue
        raise Unreachable("no address answers")

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The host's addresses, each of which may be connected to. Whoever resolves the name again may get others.

        Raises:
            Blocked: the host has an address that is not public, and `host:port` is not allowed by the settings.
            Unreachable: the name does not resolve.
        """
        return [str(where[0]) for _, _, where in await self._judged(host, port)]

    async def _judged(self, host: str, port: int) -> Sequence[tuple[int, _Address, tuple[Any, ...]]]:
        found = await self._resolve(host, port)
        if (host, port) not in self._private and not all(is_public(address) for _, address, _ in found):
            raise Blocked(host)
        return found

    async def _resolve(self, host: str, port: int) -> Sequence[tuple[int, _Address, tuple[Any, ...]]]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):  # getaddrinfo has no limit of its own
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError):
            raise Unreachable("the name does not resolve") from None
        return [(family, ipaddress.ip_address(str(where[0]).partition("%")[0]), where) for family, _, _, _, where in found]

    def tls(self, host: str, port: int) -> ssl.SSLContext:
        """How a server's certificate is judged. Raises OSError while the sandbox has not made its certificate yet."""
        if (host, port) != self._sandbox:
            return public_tls()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=self._certificate)
        return context


async def _connect(family: int, where: tuple[Any, ...], timeout: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


@lru_cache(maxsize=1)
def public_tls() -> ssl.SSLContext:
    """Certificates are checked against the names that were asked for, by the authorities that this machine trusts."""
    return ssl.create_default_context()
