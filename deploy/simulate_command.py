"""`leadstats simulate`: what a journey would do, told by a running installation over its API; and its cases, with an exit code for CI."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from deploy.demo.api import PublicApi
from deploy.state import StateDirectory, add_state_argument
from deploy.trial.api import Away, Refused

GOOD, CASE_FAILS, CANNOT = 0, 1, 2
KEY = "LEADSTATS_API_KEY"
PATIENCE = 5.0  # seconds, with an installation that does not answer
OWN = "the journey's own"
SAID_BY_CASES = ("contacts", "segment", "sample", "script", "start", "until")
Document = dict[str, Any]


class Unusable(Exception):
    """What was asked for makes no sense; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--journey", required=True, metavar="NAME", help="its name or id")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--draft", action="store_true", help="its draft (the default)")
    which.add_argument("--version", type=int, metavar="N", help="a published version")
    parser.add_argument("--contacts", metavar="WHO", help="a JSON file of invented contacts, or ids of real ones, divided by commas")
    parser.add_argument("--segment", metavar="NAME", help="the name or id of the segment that --sample takes from (default: all contacts)")
    parser.add_argument("--sample", type=int, metavar="N", help="so many real contacts")
    parser.add_argument("--script", metavar="FILE", help="JSON: what happens and when; a list, or an object as the API takes it")
    parser.add_argument("--start", metavar="TIME", help="such as 2026-03-02T09:00:00Z (default: now)")
    parser.add_argument("--until", metavar="DURATION", help="such as P90D (default: P366D)")
    parser.add_argument("--cases", nargs="?", const=OWN, metavar="FILE", help="runs cases: the journey's own, or those of a file or export")
    parser.add_argument("--json", action="store_true", help="the API's answer on standard output, as it is")
    parser.add_argument("--address", metavar="URL", help="of the API (default: the installation over --state)")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help=f"holds the API key (default: the environment's {KEY})")
    add_state_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """0: simulated, or every case passes. 1: a case fails. 2: nothing could be tried: usage, no answer, or the API refused."""
    try:
        api = PublicApi(_address(arguments), _key(arguments), PATIENCE)
        return asyncio.run(play(arguments, api))
    except (Unusable, Refused, Away, OSError, ValueError) as error:
        print(f"leadstats simulate: {error}", file=sys.stderr)
        return CANNOT


def _address(arguments: argparse.Namespace) -> str:
    if arguments.address:
        return str(arguments.address)
    installation = StateDirectory(arguments.state).installation()
    if installation is None:
        raise Unusable(f"no installation is up over {arguments.state}; start one (make up), or name one by --address")
    return str(installation["api"])


def _key(arguments: argparse.Namespace) -> str:
    key = arguments.key_file.read_text().strip() if arguments.key_file else os.environ.get(KEY, "")
    if not key:
        raise Unusable(f"give an API key with the scopes journeys.read and templates.read in {KEY} or by --key-file")
    return str(key)


async def play(arguments: argparse.Namespace, api: PublicApi) -> int:
    """Raises Unusable, Refused, Away; OSError and ValueError for files that cannot be read."""
    async with api:
        journey = await _find(api, "/v1/journeys", "journey", arguments.journey)
        if arguments.cases is not None:
            return await _run_cases(arguments, api, journey)
        return await _simulate(arguments, api, journey)


async def _find(api: PublicApi, path: str, kind: str, wanted: str) -> str:
    """The id of what is called so."""
    try:
        return str(UUID(wanted))
    except ValueError:
        pass
    async for item in api.every(path):
        if item["name"] == wanted:
            return str(item["id"])
    raise Unusable(f"there is no {kind} named {wanted!r}")


def _read(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise Unusable(f"{path} is not JSON: {error}") from None


# --- Cases --------------------------------------------------------------------------------------------------------------


async def _run_cases(arguments: argparse.Namespace, api: PublicApi, journey: str) -> int:
    if unused := [f"--{name}" for name in SAID_BY_CASES if getattr(arguments, name) is not None]:
        raise Unusable(f"a case says itself who enters, what happens and when: leave out {', '.join(unused)}, or --cases")
    body: Document = {"version": arguments.version}
    if arguments.cases != OWN:
        body["cases"] = _cases(_read(arguments.cases), arguments.cases)
    found = await api.post(f"/v1/journeys/{journey}/cases/runs", body, keyed=False)
    if not found["results"]:
        raise Unusable("there are no cases, so that nothing was tested; add some (docs/simulator.md), or leave --cases out")
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _tell_cases(found)
    return CASE_FAILS if found["failed"] else GOOD


def _cases(document: Any, path: str) -> list[Document]:
    """Of a list of cases, one case, or an exported journey."""
    match document:
        case list():
            return document
        case {"cases": list(cases)}:
            return cases
        case {"name": str(), "expected": dict()}:
            return [document]
    raise Unusable(f"{path} holds neither cases nor an exported journey that has some")


def _tell_cases(found: Document) -> None:
    for result in found["results"]:
        print(f"{'passed' if result['passed'] else 'FAILED'}  {result['name']}")
        for difference in result["differences"]:
            print(f"        {difference['where']}: {difference['message']}")
    print(f"{found['passed']} passed, {found['failed']} failed")


# --- A simulation -------------------------------------------------------------------------------------------------------


async def _simulate(arguments: argparse.Namespace, api: PublicApi, journey: str) -> int:
    found = await api.post(f"/v1/journeys/{journey}/simulations", await _body(arguments, api), keyed=False)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _tell(found)
    return GOOD


async def _body(arguments: argparse.Namespace, api: PublicApi) -> Document:
    given = _read(arguments.script) if arguments.script else {}
    body: Document = {"script": given} if isinstance(given, list) else dict(given)
    for name in ("version", "start", "until"):
        if getattr(arguments, name) is not None:
            body[name] = getattr(arguments, name)
    if arguments.contacts:
        body |= _contacts(arguments.contacts)
    if arguments.sample is not None:
        body["sample"] = {"size": arguments.sample}
        if arguments.segment:
            body["sample"]["segment_id"] = await _find(api, "/v1/segments", "segment", arguments.segment)
    elif arguments.segment:
        raise Unusable("say by --sample how many of the segment's contacts")
    if not any(name in body for name in ("contacts", "contact_ids", "sample")):
        raise Unusable("say who: --contacts (a file of invented ones, or ids), or --sample")
    return body


def _contacts(wanted: str) -> Document:
    try:
        return {"contact_ids": [str(UUID(part.strip())) for part in wanted.split(",")]}
    except ValueError:
        found = _read(wanted)
        return {"contacts": found if isinstance(found, list) else [found]}


def _tell(found: Document) -> None:
    for warning in found["warnings"]:
        print(f"still to mend: {warning['path']}: {warning['message']}")
    for trip in found["contacts"]:
        _tell_trip(trip)
    _tell_summary(found["summary"])


def _tell_trip(trip: Document) -> None:
    why = f": {trip['words']}" if trip["words"] else ""
    print(f"{'invented ' if trip['invented'] else ''}contact {trip['contact_id']}: {trip['status']}{why}")
    messages = {(message["at"], message["step_id"]): message for message in trip["messages"]}
    for entry in trip["path"]:
        print(f"  {_clock(entry['at'])}  {entry['sentence']}")
        message = messages.get((entry["at"], entry["step_id"])) if entry["kind"] in ("sent", "not_sent", "parked") else None
        if message is not None:
            print(f"{' ' * 23}to {message['recipient']}: {message['subject'] or message['text']}")
    if trip["assumed"]:
        print(f"  taken to answer 200: {', '.join(trip['assumed'])}")
    print()


def _clock(moment: str) -> str:
    return moment[:19].replace("T", " ")


def _tell_summary(summary: Document) -> None:
    print(f"{summary['contacts']:,} contacts, {summary['messages']:,} messages")
    for end in summary["ends"]:
        print(f"  {end['contacts']:>7,}  {end['status']}{_because(end)}")
    print(f"  {'arrived':>9} {'sent':>9} {'held':>9} {'not sent':>9}  step")
    for step in summary["steps"]:
        counts = (step["arrived"], step["sent"], step["held"], sum(step["not_sent"].values()))
        print("  " + " ".join(f"{count:>9,}" for count in counts) + f"  {step['name'] or step['step_id']}")
    busiest = sorted(summary["volume"], key=lambda hour: (-hour["messages"], hour["hour"]))[:5]
    for hour in busiest:
        print(f"  {hour['messages']:>9,} messages ({hour['channel']}) in the hour from {_clock(hour['hour'])[:16]} UTC")


def _because(end: Mapping[str, Any]) -> str:
    return f": {end['words']}" if end["words"] else ""
