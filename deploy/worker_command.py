"""`leadstats worker`: a worker in this process."""

import argparse
import asyncio
import gc
import importlib.util
import sys
import time
from pathlib import Path

import psutil

from deploy.serving import serve
from models.settings import Settings

# A collection takes some tenths of a second with 100,000 runs waiting.
COLLECT_EVERY = 30.0  # seconds
COLLECT_AFTER = 32 * 1024**2  # bytes that the process has grown by; looked at every LOOK_EVERY seconds
LOOK_EVERY = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings come from the environment: docs/operating.md."""


def run(arguments: argparse.Namespace) -> int:
    import worker

    async def work(settings: Settings) -> None:
        _keep_bytecode(settings.state_directory)
        collecting = asyncio.create_task(_collect_dropped_workflows())
        try:
            await worker.run(settings)
        finally:
            collecting.cancel()

    _collect_garbage_less_often()
    return serve(work)


def _keep_bytecode(state: Path) -> None:
    """The sandbox loads a workflow's module anew for every workflow that it takes up: 2 ms with its bytecode, 4 ms without
    (measured 2026-11-25). Where that is not written (PYTHONDONTWRITEBYTECODE, as images often say, or a tree that is read-only), it is kept
    in the state directory, which nobody else may write to."""
    found = importlib.util.find_spec("workflows.journey")
    if found is None or found.cached is None or not Path(found.cached).exists():
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str((state / "bytecode").absolute())


def _collect_garbage_less_often() -> None:
    """A worker holds the states of thousands of runs, which the default collector walks again and again: a sixth of its
    processor time (measured 2026-11-23, `leadstats bench throughput`, 1,000 and 10,000 contacts)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 25, 100)


async def _collect_dropped_workflows() -> None:
    """A workflow that leaves the worker's memory is a knot of references, which only a whole collection unties: a megabyte for each page of
    a campaign. Left to the thresholds above, that would come after hours; and between two moments of a clock a campaign that starts
    leaves a hundred of them."""
    process = psutil.Process()
    size, collected = process.memory_info().rss, time.monotonic()
    while True:
        await asyncio.sleep(LOOK_EVERY)
        if process.memory_info().rss > size + COLLECT_AFTER or time.monotonic() > collected + COLLECT_EVERY:
            gc.collect()
            size, collected = process.memory_info().rss, time.monotonic()
