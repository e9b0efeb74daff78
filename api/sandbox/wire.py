"""Bytes in, lines and message bodies out: the transport under one SMTP conversation."""

import asyncio
import ssl

LINE_LIMIT = 4096
BODY_LIMIT = 35_000_000
_END = b"\r\n.\r\n"


class Hangup(Exception):
    """The other side is gone, or talks nonsense."""


class TooLarge(Exception):
    """The message was longer than `BODY_LIMIT`; all of it was read and thrown away."""


class Wire(asyncio.Protocol):
    """A connection that can be read by line and by message, and upgraded to TLS."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._more: asyncio.Future[None] | None = None
        self._ended = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def _wait(self) -> None:
        if self._ended:
            raise Hangup
        self._more = asyncio.get_running_loop().create_future()
        await self._more

    async def line(self) -> bytes:
        """The next line without its end."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE_LIMIT:
                raise Hangup
            await self._wait()
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        return line

    async def body(self) -> bytes:
        """A message up to its lone dot, with the doubled dots undone. Raises TooLarge."""
        await self._at_least(3)
        if self._buffer.startswith(b".\r\n"):
            del self._buffer[:3]
            return b""
        too_large, searched = False, 0
        while (end := self._buffer.find(_END, searched)) < 0:
            if len(self._buffer) > BODY_LIMIT:
                too_large = True
                del self._buffer[: -len(_END)]
            searched = max(0, len(self._buffer) - len(_END))
            await self._wait()
        body = bytes(self._buffer[: end + 2])
        del self._buffer[: end + len(_END)]
        if too_large:
            raise TooLarge
        return (body[1:] if body.startswith(b".") else body).replace(b"\r\n.", b"\r\n")

    async def _at_least(self, size: int) -> None:
        while len(self._buffer) < size:
            await self._wait()

    async def some(self) -> None:
        """At least one byte of whatever comes has arrived."""
        await self._at_least(1)

    def say(self, reply: str) -> None:
        if self.transport is not None:
            self.transport.write(reply.encode("ascii", "replace") + b"\r\n")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        assert self.transport is not None
        self._buffer.clear()  # what was slipped in before the handshake is not part of the encrypted conversation
        try:
            upgraded = await asyncio.get_running_loop().start_tls(self.transport, self, context, server_side=True)
        except (OSError, TimeoutError):
            raise Hangup from None
        assert isinstance(upgraded, asyncio.Transport)
        self.transport = upgraded

    def drop(self) -> None:
        """Gone without a word."""
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
