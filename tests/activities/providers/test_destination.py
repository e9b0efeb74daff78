import socket
from ipaddress import ip_address
from typing import Any

import pytest

from activities.providers.destination import Blocked, Destinations, Unreachable, is_public
from models.settings import Settings

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "192.88.99.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fd00::1",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::7f00:1",
    "::127.0.0.1",
    "::10.0.0.1",
    "::8.8.8.8",
    "::ffff:0:7f00:1",
    "::ffff:0:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "::ffff:100.64.0.1",
    "::ffff:192.88.99.1",
    "2a00:1450::5efe:10.0.0.1",
    "2a00:1450::200:5efe:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "2001:db8::1",
    "2001::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "::1", "::ffff:127.0.0.1", "0"])
async def test_no_spelling_of_loopback_is_let_through(settings: Settings, host: str) -> None:
    with pytest.raises((Blocked, Unreachable)):
        await Destinations(settings).open(host, 25, 1)


async def test_one_private_answer_among_public_ones_blocks(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    destinations = Destinations(settings)

    async def mixed(*_: Any) -> list[Any]:
        return [
            (socket.AF_INET, ip_address("8.8.8.8"), ("8.8.8.8", 25)),
            (socket.AF_INET, ip_address("10.0.0.1"), ("10.0.0.1", 25)),
        ]

    monkeypatch.setattr(destinations, "_resolve", mixed)
    with pytest.raises(Blocked):
        await destinations.open("rebinding.example", 25, 1)


async def test_only_the_exact_host_and_port_are_allowed(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        allowed = Destinations(settings.model_copy(update={"private_destinations": f"127.0.0.1:{port}"}))
        (await allowed.open("127.0.0.1", port, 1)).close()
        for host, other in (("127.0.0.1", port + 1), ("localhost", port)):
            with pytest.raises(Blocked):
                await allowed.open(host, other, 1)
