"""Calls to chosen addresses: what may be reached, how much is read, how long it takes."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from activities.providers.destination import Destinations, Unreachable, sandbox_certificate
from activities.providers.webhook import MAX_ANSWER, CallFailed, Reply, Webhooks
from api.sandbox.certificate import server_tls
from models.settings import Settings
from tests.receiver import Received, Receiver, answering, receiving

LONG = timedelta(seconds=30)


@asynccontextmanager
async def webhooks(settings: Settings, *private: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Webhooks]:
    made = Webhooks(Destinations(settings.model_copy(update={"private_destinations": ",".join(private)})), tls)
    yield made
    await made.close()


async def post(settings: Settings, url: str, *private: str, timeout: timedelta = LONG, tls: ssl.SSLContext | None = None) -> Reply:
    async with webhooks(settings, *private, tls=tls) as calling:
        return await calling.post(url, {"X-Token": "t"}, b'{"a":1}', timeout)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[list[str]]]]:
    """By name, the answers that it gives one after the other; the last one for ever."""
    names: dict[str, list[list[str]]] = {}

    async def resolve(self: Destinations, host: str, port: int) -> list[Any]:
        answers = names.get(host)
        if answers is None:
            try:
                addresses = [str(ip_address(host))]
            except ValueError:
                raise Unreachable("the name does not resolve") from None
        else:
            addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, ip_address(address), (address, port)) for address in addresses]

    monkeypatch.setattr(Destinations, "_resolve", resolve)
    yield names


async def refusal(settings: Settings, url: str, *private: str, **more: Any) -> str:
    with pytest.raises(CallFailed) as failed:
        await post(settings, url, *private, **more)
    return failed.value.reason


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"),
        *("127.0.0.1.", "①②⑦.⓪.⓪.①", "LOCALHOST", "user@127.0.0.1", "example.com@127.0.0.1"),
    ],
)
async def test_no_spelling_of_loopback_is_reached(settings: Settings, receiver: Receiver, host: str) -> None:
    with pytest.raises(CallFailed):
        await post(settings, f"http://{host}:{receiver.port}/", timeout=timedelta(seconds=5))
    assert receiver.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://168.63.129.16/",
        "http://100.100.100.200/",
        "http://10.0.0.1/",
        "https://192.168.1.1/",
        "http://[fe80::1]/",
    ],
)
async def test_metadata_and_private_addresses_are_blocked(settings: Settings, url: str) -> None:
    assert await refusal(settings, url) == "blocked_destination"


async def test_a_name_that_resolves_to_a_private_address_is_blocked(
    settings: Settings, receiver: Receiver, zone: dict[str, list[list[str]]]
) -> None:
    zone["hook.example"] = [["127.0.0.1"]]
    zone["mixed.example"] = [["93.184.215.14", "127.0.0.1"]]
    for host in zone:
        assert await refusal(settings, f"http://{host}:{receiver.port}/") == "blocked_destination"
    assert receiver.connections == 0


async def test_a_name_is_resolved_once_for_a_connection(settings: Settings, receiver: Receiver, zone: dict[str, list[list[str]]]) -> None:
    """A second look would find another address: what was judged is what is connected to."""
    zone["hook.example"] = [["127.0.0.1"], ["169.254.169.254"]]
    reply = await post(settings, f"http://hook.example:{receiver.port}/", f"hook.example:{receiver.port}")
    assert reply.status == 200
    assert receiver.received[0].headers["host"] == f"hook.example:{receiver.port}"
    assert zone["hook.example"] == [["169.254.169.254"]]


async def test_a_name_that_turns_private_for_the_next_connection_is_blocked(
    settings: Settings, receiver: Receiver, zone: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    zone["hook.example"] = [["127.0.0.2"], ["127.0.0.1"]]
    monkeypatch.setattr("activities.providers.destination.is_public", lambda address: str(address) == "127.0.0.2")
    with pytest.raises(CallFailed, match="webhook_unreachable"):  # nobody listens there
        await post(settings, f"http://hook.example:{receiver.port}/")
    assert await refusal(settings, f"http://hook.example:{receiver.port}/") == "blocked_destination"
    assert receiver.connections == 0


async def test_a_redirect_is_an_answer_and_not_followed(settings: Settings, receiver: Receiver) -> None:
    async with receiving() as inside:
        receiver.says(302, None, Location=inside.url)
        assert (await post(settings, receiver.url, receiver.private)).status == 302
        assert inside.connections == 0


async def test_no_proxy_of_the_environment_is_asked(settings: Settings, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.private}")
        assert (await post(settings, receiver.url, receiver.private)).status == 200
        assert proxy.connections == 0


async def test_only_the_exact_host_and_port_that_the_settings_allow_are_reached(settings: Settings, receiver: Receiver) -> None:
    assert (await post(settings, receiver.url, receiver.private)).status == 200
    async with receiving() as other:
        assert await refusal(settings, other.url, receiver.private) == "blocked_destination"
        assert other.connections == 0


@pytest.mark.parametrize("url", ["ftp://example.com/", "file:///etc/passwd", "unix:/tmp/x", "http://exa\x00mple/"])
async def test_what_is_no_web_address_fails_for_good(settings: Settings, url: str) -> None:
    with pytest.raises(CallFailed) as failed:
        await post(settings, url, timeout=timedelta(seconds=5))
    assert failed.value.permanent


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(settings: Settings, tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side with a certificate for localhost, and a caller's that trusts it."""
    here = settings.model_copy(update={"state_directory": tmp_path})
    server = server_tls(here)
    return server, ssl.create_default_context(cafile=str(sandbox_certificate(here)))


async def test_the_certificate_is_checked_against_the_name(
    settings: Settings, certificate: tuple[ssl.SSLContext, ssl.SSLContext], zone: dict[str, list[list[str]]]
) -> None:
    server, trusting = certificate
    zone["localhost"] = zone["other.example"] = [["127.0.0.1"]]
    async with receiving(server) as receiver:
        names = (f"localhost:{receiver.port}", f"other.example:{receiver.port}")
        assert (await post(settings, f"https://{names[0]}/", *names, tls=trusting)).status == 200
        assert await refusal(settings, f"https://{names[1]}/", *names, tls=trusting) == "webhook_certificate_invalid"
        assert await refusal(settings, f"https://{names[0]}/", *names) == "webhook_certificate_invalid"
        assert len(receiver.received) == 1


# --- what is said and heard -------------------------------------------------------------------------------------------


async def test_the_request_says_what_it_should_and_connections_are_kept(settings: Settings, receiver: Receiver) -> None:
    receiver.says(200, {"ok": True}, Set_Cookie="session=theirs")
    async with webhooks(settings, receiver.private) as calling:
        for _ in range(3):
            await calling.post(receiver.url, {"X-Token": "t"}, b'{"a":1}', LONG)
    assert receiver.connections == 1
    for received in receiver.received:
        assert (received.body, received.path) == (b'{"a":1}', "/hook")
        assert received.headers["x-token"] == "t"
        assert received.headers["accept-encoding"] == "identity"
        assert "cookie" not in received.headers


async def test_no_more_of_an_answer_is_read_than_may_be(settings: Settings, receiver: Receiver) -> None:
    receiver.says(200, b"x" * MAX_ANSWER)
    reply = await post(settings, receiver.url, receiver.private)
    assert reply.body is not None and len(reply.body) == MAX_ANSWER
    receiver.answer = lambda received: b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * (2 * MAX_ANSWER)
    assert await post(settings, receiver.url, receiver.private) == Reply(200, None)


async def test_a_compressed_answer_is_not_unpacked(settings: Settings, receiver: Receiver) -> None:
    receiver.says(200, gzip.compress(b"0" * 100_000_000), Content_Encoding="gzip")
    reply = await post(settings, receiver.url, receiver.private)
    assert reply.body is not None and len(reply.body) < MAX_ANSWER


async def test_the_timeout_is_over_the_whole_exchange(settings: Settings) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.1)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    private = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        assert await refusal(settings, f"http://{private}/", private, timeout=timedelta(seconds=1)) == "webhook_timeout"


async def test_a_server_that_says_nothing_or_hangs_up_or_is_not_there(settings: Settings, receiver: Receiver) -> None:
    receiver.answer = lambda received: b""
    assert await refusal(settings, receiver.url, receiver.private) == "webhook_connection_lost"
    receiver.answer = lambda received: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf"
    assert await refusal(settings, receiver.url, receiver.private) == "webhook_connection_lost"
    receiver.answer = lambda received: b"SSH-2.0-OpenSSH_9.9\r\nConnection: close\r\n\r\n"
    assert await refusal(settings, receiver.url, receiver.private) == "webhook_connection_lost"
    assert await refusal(settings, "http://nowhere.invalid/") == "webhook_unreachable"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        private = f"127.0.0.1:{closed.getsockname()[1]}"
        assert await refusal(settings, f"http://{private}/", private) == "webhook_unreachable"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("999999999", 6 * 3600),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("²", None),
        ("00060", 60),
        ("99999999999999", 6 * 3600),
        ("9" * 9_000, 6 * 3600),
    ],
)
async def test_how_long_the_other_side_wants_to_be_left_alone(
    settings: Settings, receiver: Receiver, said: str, seconds: int | None
) -> None:
    raw = answering(503, None, Retry_After="@").replace(b"@", said.encode("latin-1"))
    receiver.answer = lambda received: raw
    wanted = None if seconds is None else timedelta(seconds=seconds)
    assert (await post(settings, receiver.url, receiver.private)).retry_after == wanted


async def test_the_wish_may_be_a_date(settings: Settings, receiver: Receiver) -> None:
    def later(received: Received) -> bytes:
        return answering(429, None, Retry_After=format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True))

    receiver.answer = later
    wanted = (await post(settings, receiver.url, receiver.private)).retry_after
    assert wanted is not None and timedelta(minutes=9) < wanted <= timedelta(minutes=10)
