"""Free ports, chosen so that installations side by side do not take each other's."""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import TextIO

USUAL = {"api": 8000, "temporal": 7233, "temporal_ui": 8233, "postgres": 5433, "sandbox_smtp": 1025}
_CHOICE = range(20_000, 32_000)  # below Linux's ephemeral range, so that no outgoing connection takes one meanwhile
_TRIES = 200


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Could a server listen there now?"""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do: connections that linger in TIME_WAIT do not make a port taken, a listening socket does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port on which nobody listens at this moment."""
    for _ in range(_TRIES):
        port = random.choice(_CHOICE)
        if is_free(port):
            return port
    raise OSError(f"No free port between {_CHOICE.start} and {_CHOICE.stop}.")


class Reservations:
    """Ports held by this process: another `leadstats up` of the same user passes over them, even while nothing listens
    there (a part is being restarted). Given back when the process ends, however it ends."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.gettempdir()) / f"leadstats-ports-{os.geteuid()}"
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._held: list[TextIO] = []

    def choose(self, usual: int, remembered: int | None = None) -> int:
        """The remembered port when it is free, else the usual one, else any."""
        for port in (remembered, usual):
            if port is not None and self.take(port):
                return port
        for _ in range(_TRIES):
            port = free_port()
            if self.take(port):
                return port
        raise OSError("No free port could be reserved.")

    def take(self, port: int) -> bool:
        """True when the port is free and now ours."""
        note = (self._directory / str(port)).open("w")
        with contextlib.suppress(OSError):
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_free(port):
                self._held.append(note)
                return True
        note.close()
        return False

    def release(self) -> None:
        for note in self._held:
            note.close()
        self._held.clear()
