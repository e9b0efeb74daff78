"""`leadstats chaos`: kills parts at random moments during a campaign and a bulk replay, and counts what was lost or doubled.

Works on an installation of its own, which it starts and ends; nothing else on the machine is touched.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from deploy.chaos.trial import Report, Trial, run_trial
from deploy.trial.installation import NotStarted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contacts", type=_count, default=2000, help="how many contacts who consented (default 2000)")
    parser.add_argument("--kills", type=_count, default=20, help="how many kills (default 20)")
    parser.add_argument("--seed", type=int, help="repeats the kills of an earlier trial in their order (default: a new one)")
    parser.add_argument(
        "--replays",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="then as many kills while as many runs that failed are replayed in bulk (default: yes)",
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="keeps the installation's state in this new directory")
    parser.add_argument("--json", action="store_true", help="one line on standard output; progress goes to standard error")


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError("give a number from 1 to 100000")
    return number


def run(arguments: argparse.Namespace) -> int:
    """0: nothing was lost or doubled and the record verifies. 1: not so. 2: the installation could not be started."""
    seed = arguments.seed if arguments.seed is not None else time.time_ns() % 1_000_000
    replay_kills = arguments.kills if arguments.replays else 0
    trial = Trial(arguments.contacts, arguments.kills, seed, arguments.state, replay_kills)
    try:
        report = asyncio.run(run_trial(trial, _say))
    except NotStarted as error:
        print(f"leadstats chaos: {error}", file=sys.stderr)
        return 2
    except asyncio.CancelledError:  # by SIGTERM
        return 143
    print(json.dumps(report.document()) if arguments.json else _text(report))
    return 0 if report.ok else 1


def _say(line: str) -> None:
    print(f"chaos: {line}", file=sys.stderr, flush=True)


def _text(report: Report) -> str:
    document: dict[str, Any] = report.document()
    lines = [f"{name.replace('_', ' '):<34} {value}" for name, value in document.items()]
    return "\n".join([*lines, "", "Nothing was lost or doubled." if report.ok else "NOT as it should be; see above."])
