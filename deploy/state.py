"""The state directory of an installation: its secrets, its ports, who runs it, and what is running."""

import argparse
import base64
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

DEFAULT = Path(".leadstats")


def add_state_argument(parser: argparse.ArgumentParser) -> None:
    default = Path(os.environ.get("LEADSTATS_STATE", DEFAULT))
    parser.add_argument("--state", type=Path, default=default, metavar="DIR", help=f"state directory (default: {default})")


class AlreadyRunning(Exception):
    """Another `leadstats up` runs over this state."""


class Secrets(BaseModel):
    """Made on first start, kept in `secrets.json` (mode 600)."""

    model_config = ConfigDict(frozen=True)

    secret_key: str  # 32 bytes in base64
    database_owner_password: str
    database_app_password: str
    admin_email: str
    admin_password: str
    organization_id: str | None = None  # None until the first organization exists
    api_key: str | None = None


class StateDirectory:
    """The files of one installation. Written whole or not at all, and readable by their owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"

    def prepare(self) -> None:
        """The directory exists. Root's may be passed through, since PostgreSQL's account must reach its data below."""
        if not self.path.exists():
            self.path.mkdir(parents=True)
            self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.logs.mkdir(exist_ok=True, mode=0o700)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """This process alone runs the installation, until the block or the process ends.

        Raises:
            AlreadyRunning: the message says which process does.
        """
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise AlreadyRunning(f"leadstats up already runs over {self.path} (process {file.read().strip() or 'unknown'}).") from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def secrets(self) -> Secrets:
        """The installation's secrets, made now when there are none."""
        if (known := self.known_secrets()) is not None:
            return known
        made = Secrets(
            secret_key=base64.b64encode(secrets.token_bytes(32)).decode(),
            database_owner_password=secrets.token_urlsafe(24),
            database_app_password=secrets.token_urlsafe(24),
            admin_email=os.environ.get("LEADSTATS_ADMIN_EMAIL", "admin@example.com"),
            admin_password=secrets.token_urlsafe(18),
        )
        self.keep_secrets(made)
        return made

    def known_secrets(self) -> Secrets | None:
        """The installation's secrets, or None when none were made."""
        stored = self._read("secrets.json")
        return None if stored is None else Secrets.model_validate(stored)

    def keep_secrets(self, made: Secrets) -> None:
        self._write("secrets.json", made.model_dump())

    def ports(self) -> dict[str, int]:
        return dict(self._read("ports.json") or {})

    def keep_ports(self, ports: Mapping[str, int]) -> None:
        self._write("ports.json", ports)

    def processes(self) -> dict[str, int]:
        """Process ids by part, as last written by the running `up`. Empty when none runs."""
        return dict(self._read("processes.json") or {})

    def keep_processes(self, processes: Mapping[str, int]) -> None:
        self._write("processes.json", processes)

    def installation(self) -> dict[str, Any] | None:
        """What `leadstats up --json` printed, or None when the installation is not up."""
        found = self._read("installation.json")
        return None if found is None else dict(found)

    def keep_installation(self, installation: Mapping[str, Any]) -> None:
        self._write("installation.json", installation)

    def forget_running(self) -> None:
        for name in ("processes.json", "installation.json"):
            (self.path / name).unlink(missing_ok=True)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: object) -> None:
        draft = self.path / f".{name}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path / name)
