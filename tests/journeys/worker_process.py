"""Real worker processes over a stack's parts, to be frozen, stopped and killed. Their workflows keep real time."""

import asyncio
import os
import signal
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from temporalio.client import Client

from api.dependencies import Services
from deploy.environment import part_command
from deploy.parentage import die_with_parent
from deploy.probes import Unhealthy, worker_polls
from deploy.trial.installation import private_environment
from models.settings import Settings
from tests.journeys.conftest import Stack
from workflows.connection import payload_keys
from workflows.payloads import plugin

POLLS_WITHIN = 120.0  # seconds, on a busy machine


async def in_real_time(stack: Stack, name: str, **settings: Any) -> Stack:
    """The same parts, but with a task queue of this name, for workers of its own, and a client that leaves the clock alone."""
    config = stack.services.temporal.service_client.config
    client = await Client.connect(config.target_host, plugins=[plugin(payload_keys(stack.settings))])
    changed = stack.settings.model_copy(update={"task_queue": f"{stack.settings.task_queue}-{name}", **settings})
    return replace(stack, settings=changed, services=Services(settings=changed, database=stack.services.database, temporal=client))


@dataclass(eq=False)
class WorkerProcess:
    """`leadstats worker`, as an operator starts it."""

    stack: Stack
    process: asyncio.subprocess.Process
    log: Path

    @classmethod
    async def start(cls, stack: Stack) -> "WorkerProcess":
        """It polls for work."""
        log = Path(tempfile.mkstemp(prefix="worker-", suffix=".log", dir=stack.settings.state_directory)[1])
        output = os.open(log, os.O_WRONLY)
        try:
            process = await asyncio.create_subprocess_exec(
                *part_command("worker"), env=_environment(stack), stdout=output, stderr=output, preexec_fn=die_with_parent()
            )
        finally:
            os.close(output)
        started = cls(stack, process, log)
        try:
            async with asyncio.timeout(POLLS_WITHIN):
                while not await started._polls():
                    assert process.returncode is None, log.read_text()
                    await asyncio.sleep(0.1)
        except BaseException:
            await started.kill()
            raise
        return started

    async def _polls(self) -> bool:
        try:
            found = await worker_polls(self.stack.services.temporal, self.stack.settings.task_queue)
        except Unhealthy:  # nobody does yet
            return False
        return any(identity.startswith(f"{self.process.pid}@") for identity in found)

    def freeze(self) -> None:
        """It stands still in the middle of whatever it does, and believes afterwards that no time has passed."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """In order, as for a new release: what is past the point of no return is finished."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        await self.process.wait()

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def worker_processes(stack: Stack, count: int) -> AsyncIterator[list[WorkerProcess]]:
    """So many; whatever the block has put into the list is killed at its end."""
    running = list(await asyncio.gather(*(WorkerProcess.start(stack) for _ in range(count))))
    try:
        yield running
    finally:
        for each in running:
            await each.kill()


def _environment(stack: Stack) -> dict[str, str]:
    settings, temporal = stack.settings, stack.services.temporal
    defaults = Settings.model_fields
    changed = {
        f"LEADSTATS_{name.upper()}": str(getattr(settings, name))
        for name in ("sandbox_smtp_host", "sandbox_smtp_port", "task_queue", "max_cached_workflows", "private_destinations")
        if getattr(settings, name) != defaults[name].default
    }
    return private_environment() | {
        **changed,
        "DATABASE_APP_URL": settings.database_url.get_secret_value(),
        "LEADSTATS_SECRET_KEY": b64encode(settings.secret_key.get_secret_value()).decode(),
        "LEADSTATS_STATE": str(settings.state_directory),
        "TEMPORAL_ADDRESS": temporal.service_client.config.target_host,
        "TEMPORAL_NAMESPACE": temporal.namespace,
        "PYTHONUNBUFFERED": "1",
        "PATH": os.environ["PATH"],
    }
