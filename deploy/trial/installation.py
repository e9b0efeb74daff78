"""A private installation: `leadstats up` over a state directory of its own, ended with the block that started it."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from temporalio.client import Client

from deploy.environment import ROOT
from deploy.parentage import die_with_parent
from deploy.state import StateDirectory
from deploy.trial.api import Api
from models.settings import Settings

READY_WITHIN = 180.0  # seconds
STOPPED_WITHIN = 20.0
_FOREIGN = ("DATABASE_", "TEMPORAL_", "LEADSTATS_")  # variables that would lead to somebody else's parts


class NotStarted(Exception):
    """The installation did not become ready; the message ends with what it said last."""


@dataclass(frozen=True)
class Installation:
    """A running one. `described` is what `leadstats up --json` printed."""

    state: StateDirectory
    described: Mapping[str, Any]
    process: asyncio.subprocess.Process
    log: Path

    def pids(self) -> dict[str, int]:
        """Process ids by part, as they are now: only children of ours, whatever the file says."""
        return {name: pid for name, pid in self.state.processes().items() if _parent(pid) == self.process.pid}

    @property
    def organization_id(self) -> UUID:
        return UUID(self.described["organization_id"])

    def settings(self) -> Settings:
        """Enough of the installation's settings to derive its keys."""
        environment = {
            "DATABASE_APP_URL": self.described["database_url"],
            "LEADSTATS_SECRET_KEY": self.state.secrets().secret_key,
            "LEADSTATS_STATE": str(self.state.path),
        }
        return Settings.from_environment(environment)

    def api(self) -> Api:
        """A client with every permission of the first organization."""
        return Api(self.described["api"], self.described["api_key"])

    async def temporal(self) -> Client:
        """A client without our payload converter: it counts, it does not read."""
        return await Client.connect(self.described["temporal"], namespace=self.described["temporal_namespace"])


@asynccontextmanager
async def private_installation(directory: Path | None = None, overrides: Mapping[str, str] | None = None) -> AsyncIterator[Installation]:
    """A ready installation, stopped when the block ends. Without `directory`, its state is thrown away then. Use from the
    main thread: the kernel ends it together with the thread that started it.

    Raises:
        NotStarted: it was not ready in time, or `directory` is an installation already.
    """
    with _state_path(directory) as path, _ended_in_order():
        process, log = await _spawn(path, overrides or {})
        try:
            described = await _ready(process, log)
            yield Installation(StateDirectory(path), described, process, log)
        finally:
            await _stop(process)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM cancels what runs here, so that the installation is stopped and its state removed."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class _state_path:
    """The directory for the state: the one asked for, which must be new, or one that goes away with the block."""

    def __init__(self, wanted: Path | None) -> None:
        self._wanted = wanted
        self._temporary: Path | None = None

    def __enter__(self) -> Path:
        if self._wanted is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="leadstats-trial-"))
            self._temporary.chmod(0o711)  # PostgreSQL's account passes through when we are root
            return self._temporary / "state"
        if self._wanted.exists():
            raise NotStarted(f"{self._wanted} exists already. Name a directory that does not: a trial never touches a real installation.")
        return self._wanted.absolute()

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


def private_environment() -> dict[str, str]:
    """Our environment without what would lead to another installation's parts."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}


async def _spawn(path: Path, overrides: Mapping[str, str]) -> tuple[asyncio.subprocess.Process, Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_name(f"{path.name}-up.log")
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "leadstats.py"),
            "up",
            "--json",
            "--state",
            str(path),
            env=private_environment() | dict(overrides),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=file,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    return process, log


async def _ready(process: asyncio.subprocess.Process, log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), READY_WITHIN)
        return dict(json.loads(line))
    except (TimeoutError, json.JSONDecodeError):
        raise NotStarted(f"The installation was not ready within {READY_WITHIN:.0f} s. It said last:\n{_tail(log)}") from None


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOPPED_WITHIN)
    except TimeoutError:
        process.kill()  # its children end with it
        await process.wait()


def _parent(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return None
