"""A web server on loopback that keeps what it is sent and answers as it is told."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """`answer` says what is written back to each request: the whole of it, head included."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    in_the_air: int = 0
    most_in_the_air: int = 0
    answer: Callable[[Received], bytes] = lambda received: answering(200, {})
    before: Callable[[Received], Awaitable[None]] | None = None  # between hearing and answering

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def private(self) -> str:
        return f"127.0.0.1:{self.port}"

    def says(self, status: int, document: Any = None, **headers: str) -> None:
        """From now on, to everybody."""
        raw = answering(status, document, **headers)
        self.answer = lambda received: raw

    def says_in_turn(self, *answers: bytes) -> None:
        """The last one to all that follow."""
        left = list(answers)
        self.answer = lambda received: left.pop(0) if len(left) > 1 else left[0]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (received := await _read(reader)) is not None:
                self.received.append(received)
                self.in_the_air += 1
                self.most_in_the_air = max(self.most_in_the_air, self.in_the_air)
                try:
                    if self.before is not None:
                        await self.before(received)
                    raw = self.answer(received)
                finally:
                    self.in_the_air -= 1
                writer.write(raw)
                await writer.drain()
                if not raw or b"Connection: close" in raw:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(first.split(" ")[1], headers, body)


def answering(status: int, document: Any = None, **headers: str) -> bytes:
    """An answer whose body is this document, or these bytes."""
    body = document if isinstance(document, bytes) else b"" if document is None else json.dumps(document).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Listens on a free port for as long as the block lasts."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
