"""`leadstats demo`: a thousand invented people, a journey, and the proof that each got what they agreed to and nothing else."""

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from deploy.demo.api import PublicApi
from deploy.demo.founding import found_organization
from deploy.demo.outcome import read_outcome
from deploy.demo.people import read_file
from deploy.demo.scene import NotTaken, set_scene
from deploy.demo.summary import document, show
from deploy.demo.watching import watch
from deploy.probes import Unhealthy, api_health
from deploy.state import DEFAULT, StateDirectory
from deploy.trial.api import Away, Refused

HOLDS, DOES_NOT_HOLD, CANNOT_RUN = 0, 1, 2
MOST = 1_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", type=Path, default=Path(os.environ.get("LEADSTATS_STATE", DEFAULT)), help="the running installation's")
    parser.add_argument("--contacts", type=_contacts, default=MOST, metavar="N", help="how many of the 1,000 people take part")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output; progress goes to standard error")


def run(arguments: argparse.Namespace) -> int:
    """0: everything holds. 1: somebody got what they must not get, or not what they should. 2: the demo could not be played."""
    state = StateDirectory(arguments.state)
    installation = state.installation()
    if installation is None:
        return _give_up(f"no installation is up over {state.path}. Start one in another terminal: make up")
    try:
        return asyncio.run(_play(state, installation, arguments.contacts, as_json=arguments.json))
    except (Unhealthy, Refused, Away, NotTaken) as error:
        return _give_up(str(error))


async def _play(state: StateDirectory, installation: dict[str, Any], contacts: int, *, as_json: bool) -> int:
    started = time.monotonic()
    console = Console(stderr=as_json)
    await api_health(installation["api"])
    file, people = read_file(contacts)
    founded = await found_organization(state, installation)
    _say(console, f"founded the organization {founded.slug}")
    async with PublicApi(installation["api"], founded.api_key) as api:
        scene = await set_scene(api, people, file, lambda line: _say(console, line))
        await watch(api, scene.campaign_id, console)
        _say(console, f"reading inbox, {contacts:,} timelines and audit record, to compare them with the file")
        with console.status("comparing"):
            outcome = await read_outcome(api, people, scene)
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps(document(outcome, founded, scene, installation, seconds)), flush=True)
    else:
        show(console, outcome, founded, scene, installation, seconds)
    return HOLDS if outcome.holds else DOES_NOT_HOLD


def _say(console: Console, line: str) -> None:
    console.print(f"· {line}", highlight=False, markup=False, soft_wrap=True)


def _contacts(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
        raise argparse.ArgumentTypeError(f"give a number from 1 to {MOST}")
    return int(text)


def _give_up(message: str) -> int:
    print(f"leadstats demo: {message}", file=sys.stderr)
    return CANNOT_RUN
