"""The output of a part, line by line: to a file of its own, and to the terminal with the part's name before it."""

import asyncio
import os
import zlib
from collections import deque
from pathlib import Path
from typing import TextIO

ROTATE_AT_BYTES = 20_000_000
TAIL_LINES = 20
LONGEST_LINE_BYTES = 64_000
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 95)  # of ANSI terminals; told apart on dark and light


class ChildLog:
    """`DIRECTORY/<name>.log`, and `terminal`. The file before the current one is kept as `<name>.log.1`."""

    def __init__(self, name: str, directory: Path, terminal: TextIO) -> None:
        self._path = directory / f"{name}.log"
        self._file = self._path.open("ab", buffering=0)
        self._terminal = terminal
        self._prefix = _prefix(name, coloured=terminal.isatty() and "NO_COLOR" not in os.environ)
        self._muted = False
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    async def follow(self, descriptor: int) -> None:
        """Returns when every holder of the pipe's other end has closed it. Closes `descriptor`."""
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb")
        )
        try:
            await self._copy(stream)
        finally:
            transport.close()

    async def _copy(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(65_536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._write(line)
            if len(rest) > LONGEST_LINE_BYTES:
                self._write(rest)
                rest = b""
        if rest:
            self._write(rest)

    def say(self, notice: str) -> None:
        """A line about the part."""
        muted, self._muted = self._muted, False
        self._write(f"[leadstats] {notice}".encode())
        self._muted = muted

    def mute(self) -> None:
        """From now on to the file alone: while it stops, a part complains that the others are gone."""
        self._muted = True

    def tail(self) -> str:
        return "\n".join(self._tail)

    def close(self) -> None:
        self._file.close()

    def _write(self, line: bytes) -> None:
        if self._file.closed:
            return
        if self._file.tell() > ROTATE_AT_BYTES:
            self._rotate()
        self._file.write(line + b"\n")
        text = line.decode(errors="replace").rstrip("\r")
        self._tail.append(text)
        if self._muted:
            return
        self._terminal.write(f"{self._prefix}{text}\n")
        self._terminal.flush()

    def _rotate(self) -> None:
        self._file.close()
        self._path.rename(self._path.with_suffix(".log.1"))
        self._file = self._path.open("ab", buffering=0)


def _prefix(name: str, *, coloured: bool) -> str:
    padded = f"{name:<8} | "
    return f"\x1b[{_COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]}m{padded}\x1b[0m" if coloured else padded
