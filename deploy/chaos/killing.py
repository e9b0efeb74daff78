"""Killing a part of a private installation, and seeing that it comes back."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
from temporalio.client import Client
from temporalio.service import RPCError

from deploy.chaos.judge import Kill
from deploy.chaos.plan import EVERYTHING, PARTS, Planned
from deploy.probes import Unhealthy, api_health, smtp_banner, worker_polls
from deploy.trial.installation import Installation
from models.settings import Settings

RECOVERS_WITHIN = 60.0  # seconds


class NotRecovered(Exception):
    """A killed part did not come back in time."""


class Killer:
    """Kills parts of one installation: children of the `leadstats up` that we started, and nothing else."""

    def __init__(self, installation: Installation, temporal: Client) -> None:
        self._installation = installation
        self._temporal = temporal
        self._queue = Settings.model_fields["task_queue"].default

    async def carry_out(self, planned: Planned) -> Kill:
        """The part has been killed after the plan's pause, and answers again under a new process id.

        Raises:
            NotRecovered: it does not.
        """
        await asyncio.sleep(planned.pause)
        victims = PARTS if planned.part == EVERYTHING else (planned.part,)
        old = self._installation.pids()
        at = datetime.now(UTC)
        for part in victims:
            if part in old:
                with suppress(ProcessLookupError):
                    os.kill(old[part], signal.SIGKILL)
        for part in victims:
            await self._until_back(part, old)
        return Kill(planned.part, at, datetime.now(UTC))

    async def _until_back(self, part: str, old: Mapping[str, int]) -> None:
        deadline = time.monotonic() + RECOVERS_WITHIN
        trouble: Exception | None = None
        while time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            pid = self._installation.pids().get(part)
            if pid is None or pid == old.get(part):
                continue
            try:
                return await self._probe(part)(pid)
            except (Unhealthy, RPCError, psycopg.Error) as error:
                trouble = error
        raise NotRecovered(f"{part} did not come back within {RECOVERS_WITHIN:.0f} s ({trouble or 'no new process'})")

    def _probe(self, part: str) -> Callable[[int], Awaitable[None]]:
        return {
            "worker": self._worker,
            "api": self._api,
            "temporal": self._server,
            "postgres": self._postgres,
            "sandbox": self._sandbox,
        }[part]

    async def _worker(self, pid: int) -> None:
        """Polled by the new process: the dead one's polls are remembered for a while."""
        if not any(identity.startswith(f"{pid}@") for identity in await worker_polls(self._temporal, self._queue)):
            raise Unhealthy("The new worker does not poll yet.", "Wait.")

    async def _api(self, pid: int) -> None:
        await api_health(self._installation.described["api"])

    async def _server(self, pid: int) -> None:
        await self._temporal.service_client.check_health()

    async def _postgres(self, pid: int) -> None:
        url = self._installation.described["database_url"]
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=2) as connection:
            await connection.execute("SELECT 1")

    async def _sandbox(self, pid: int) -> None:
        host, _, port = self._installation.described["sandbox_smtp"].rpartition(":")
        await smtp_banner(host, int(port))
