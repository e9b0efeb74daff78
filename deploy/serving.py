"""Running one part in this process, with the settings of the environment, until it is told to stop."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from models.settings import Settings

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def serve(part: Callable[[Settings], Awaitable[None]], run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run) -> int:
    """Runs `part` (with `run`) until it returns, or until SIGTERM or SIGINT cancels it. 2 when the environment is not complete."""
    try:
        settings = Settings.from_environment(os.environ)
    except ValueError as error:
        print(f"leadstats: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level)
    run(_until_signal(part, settings))
    return 0


def configure_logging(level: str) -> None:
    """Everything to standard error, one line each, in UTC."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=level.upper(), format=FORMAT, datefmt="%H:%M:%S", stream=sys.stderr, force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


async def _until_signal(part: Callable[[Settings], Awaitable[None]], settings: Settings) -> None:
    task = asyncio.ensure_future(part(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)  # Temporal's client must not hold the interpreter while it ends: temporal.md section 14
