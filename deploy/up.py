"""`leadstats up`: everything running as one process tree, until Ctrl-C or SIGTERM."""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import Any

from deploy.environment import Plan, PortTaken, make_plan
from deploy.ports import Reservations
from deploy.processes import PartFailed, ProcessTree, first_of
from deploy.startup import STOP_ORDER, start_everything
from deploy.state import AlreadyRunning, StateDirectory, add_state_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_state_argument(parser)
    parser.add_argument("--json", action="store_true", help="one line on standard output when ready; logs go to standard error")


def run(arguments: argparse.Namespace) -> int:
    """0 after a wanted stop, 1 when a part could not be started."""
    state = StateDirectory(arguments.state)
    state.prepare()
    try:
        with state.locked():
            asyncio.run(_serve(state, as_json=arguments.json))
    except (AlreadyRunning, PortTaken, PartFailed) as refusal:
        return _refuse(str(refusal))
    except BaseExceptionGroup as group:
        return _refuse(str(_first(group)))
    return 0


async def _serve(state: StateDirectory, *, as_json: bool) -> None:
    started = time.monotonic()
    reservations = Reservations()
    plan = make_plan(state, reservations)
    # Temporal's clients of this process read the standard environment too.
    os.environ |= {"TEMPORAL_ADDRESS": plan.temporal_address, "TEMPORAL_NAMESPACE": plan.temporal_namespace}
    tree = ProcessTree(state.logs, state.keep_processes)
    stop = _stop_on_signals(tree)
    try:
        await first_of(stop.wait(), tree.failure(), _run(plan, tree, started, as_json=as_json))
    finally:
        _notice("stopping")
        await tree.stop(STOP_ORDER)
        state.forget_running()
        reservations.release()
        await asyncio.sleep(0.05)  # Temporal's client must not hold the interpreter while it ends: temporal.md section 14
    _notice("stopped")


async def _run(plan: Plan, tree: ProcessTree, started: float, *, as_json: bool) -> None:
    """Never returns: it is cancelled by a signal."""
    installation = await start_everything(plan, tree)
    tree.settle()
    installation["pids"] = tree.pids()
    plan.state.keep_installation(installation)
    first_start = plan.secrets.organization_id is None
    if as_json:
        print(json.dumps(installation), flush=True)
    else:
        print(_welcome(installation, time.monotonic() - started, show_password=first_start), flush=True)
    await asyncio.Event().wait()


def _stop_on_signals(tree: ProcessTree) -> asyncio.Event:
    """Set by the first signal; a second one ends every part by force."""
    stop = asyncio.Event()

    def handle() -> None:
        if stop.is_set():
            tree.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, handle)
    return stop


def _welcome(installation: dict[str, Any], seconds: float, *, show_password: bool) -> str:
    admin = installation["admin"]
    password = "" if admin is None else admin["password"] if show_password else f"the password is in {installation['state']}/secrets.json"
    lines = [
        f"\nLead Stats is ready ({seconds:.1f} s).\n",
        f"  API               {installation['api']}   (described at /v1/openapi.json and in docs/api.md)",
        *([f"  Log in            {admin['email']}   {password}"] if admin else []),
        *([f"  Temporal          {installation['temporal_ui']}"] if installation["temporal_ui"] else []),
        f"  Mail sandbox      {installation['sandbox_smtp']}",
        "\nCtrl-C stops everything; the next start goes on where this one stopped.\n",
    ]
    return "\n".join(lines)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


def _refuse(message: str) -> int:
    print(f"leadstats up: {message}", file=sys.stderr)
    return 1


def _notice(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(f"leadstats: {text}", file=sys.stderr, flush=True)
