"""Parts that run as children: started, logged with their name, restarted when they die, stopped in order."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.child_log import ChildLog
from deploy.parentage import die_with_parent
from deploy.postgres_home import Identity

FIRST_PAUSE = 0.2  # seconds before the first restart, doubled for each further one
LONGEST_PAUSE = 10.0
SETTLED_AFTER = 10.0  # a part that lived this many seconds starts again at FIRST_PAUSE
STOP_WITHIN = 9.5  # seconds for all parts together: service managers and containers often kill after ten
SHORTEST_STOP = 0.5
HOPELESS = 5  # quick deaths in a row before the installation is up


class PartFailed(Exception):
    """A part cannot be started. The message ends with what it said last."""


@dataclass(frozen=True)
class Part:
    """What is to run, as whom, and how it wants to end."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    identity: Identity = field(default_factory=Identity)
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL  # sent by the kernel when we are killed
    stop_within: float = 2.0  # seconds until it is killed
    before_start: Callable[[], None] | None = None


class Child:
    """One part, kept running until `stop`.

    `changed` is called whenever its process starts or ends; `gave_up` once, when it keeps dying before `settle`.
    """

    def __init__(self, part: Part, log: ChildLog, changed: Callable[[], None], gave_up: Callable[[PartFailed], None]) -> None:
        self.part = part
        self._log = log
        self._changed = changed
        self._gave_up = gave_up
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._settled = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self) -> None:
        """The process exists. Call from the main thread: the kernel ends the child with the thread that made it."""
        await self._spawn()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.part.name}")

    def settle(self) -> None:
        """The installation is up: from now on a part that keeps dying is started again for ever."""
        self._settled = True

    async def stop(self, at_most: float) -> None:
        """The process has ended, by force when it does not within its part's time, nor within `at_most` seconds."""
        self._log.mute()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self.pid is not None:
            await self._end(min(self.part.stop_within, at_most))
        await self._finish_log()
        self._log.close()
        self._changed()

    async def _end(self, limit: float) -> None:
        assert self._process is not None
        self._signal(self.part.stop_signal)
        try:
            await asyncio.wait_for(self._process.wait(), limit)
        except TimeoutError:
            self._log.say(f"did not stop within {limit:.1f} s; ended by {self.part.death_signal.name}")
            self._signal(self.part.death_signal)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 0.5)
            self._signal(signal.SIGKILL)
            await self._process.wait()

    async def _spawn(self) -> None:
        if self.part.before_start is not None:
            self.part.before_start()
        # A pipe of our own: asyncio's would have `wait` wait for grandchildren that hold it, too.
        read_end, write_end = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.part.command,
                env=dict(self.part.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,  # Ctrl-C in the terminal is ours to pass on, in order
                umask=0o077,
                preexec_fn=die_with_parent(self.part.death_signal),
                cwd="/" if self.part.identity else None,
                **self.part.identity,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._reader = asyncio.create_task(self._log.follow(read_end))
        self._changed()

    async def _keep(self) -> None:
        pause, quick_deaths = FIRST_PAUSE, 0
        while True:
            born = time.monotonic()
            code = await self._process.wait() if self._process is not None else 0
            await self._finish_log()
            self._changed()
            lasting = time.monotonic() - born > SETTLED_AFTER
            pause, quick_deaths = (FIRST_PAUSE, 1) if lasting else (pause, quick_deaths + 1)
            if quick_deaths >= HOPELESS and not self._settled:
                return self._gave_up(PartFailed(f"{self.part.name} keeps ending while starting. It said last:\n{self._log.tail()}"))
            self._log.say(f"ended ({_meaning(code)}); starting it again in {pause:.1f} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            await self._spawn_again()

    async def _spawn_again(self) -> None:
        self._process = None
        while self._process is None:
            try:
                await self._spawn()
            except OSError as error:  # no memory, no process ids: it may pass
                self._log.say(f"could not be started: {error}")
                await asyncio.sleep(LONGEST_PAUSE)

    async def _finish_log(self) -> None:
        """What the dead process said last is written; a grandchild that holds the pipe is not waited for."""
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=0.3)
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def _signal(self, number: signal.Signals) -> None:
        """To the part's whole session when killing, so that its own children end too."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)


class ProcessTree:
    """The installation's children. `changed` is told the ids of all of them whenever one starts or ends."""

    def __init__(self, log_directory: Path, changed: Callable[[dict[str, int]], None]) -> None:
        self._log_directory = log_directory
        self._changed = changed
        self._children: dict[str, Child] = {}
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pids(self) -> dict[str, int]:
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    async def start(self, part: Part) -> None:
        log = ChildLog(part.name, self._log_directory, sys.stderr)
        child = Child(part, log, lambda: self._changed(self.pids()), self._fail)
        self._children[part.name] = child
        await child.start()

    def settle(self) -> None:
        for child in self._children.values():
            child.settle()

    async def failure(self) -> None:
        """Raises PartFailed when a part proves hopeless; never returns otherwise."""
        await asyncio.shield(self._failed)

    async def stop(self, order: Sequence[Sequence[str]], within: float = STOP_WITHIN) -> None:
        """Every child named has ended: group after group in this order, the children of a group at the same time.

        Each has its part's `stop_within`, but no more than is left of `within` seconds.
        """
        deadline = time.monotonic() + within
        for names in order:
            left = max(SHORTEST_STOP, deadline - time.monotonic())
            await asyncio.gather(*(self._children[name].stop(left) for name in names if name in self._children))

    def kill(self) -> None:
        """Every process gets SIGKILL now; `stop` then finds them ended."""
        for pid in self.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _fail(self, failure: PartFailed) -> None:
        if not self._failed.done():
            self._failed.set_exception(failure)


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Returns or raises as the first of them does; the others are cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _meaning(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
