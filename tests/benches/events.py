"""`leadstats bench events`: how soon a run goes on after its event, with many runs waiting on many instants; and what they weigh.

Contacts wait for an event in a campaign, divided over steps with different timeouts. Events come in at a steady rate, some to a
request, for a different contact each time. Client and server share the machine's processors, so the figures are a lower bound.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psutil
from sqlalchemy import text

from deploy.trial.api import Api
from deploy.trial.audience import addresses, import_contacts
from deploy.trial.campaign import launch
from deploy.trial.installation import Installation, private_installation
from models.store.session import Database
from tests.benches.measuring import conclude

ARMS = 15
GOAL_SECONDS = 1.0
GOAL_MEGABYTES = 500
SETTLES = 35  # seconds: the worker has looked once more for what it may forget

_LATENCIES = text(
    """
    SELECT extract(epoch FROM n.created_at - e.created_at) AS recorded, extract(epoch FROM n.occurred_at - e.created_at) AS moved
    FROM run_events n JOIN events e ON e.organization_id = :o AND e.id = CAST(n.details ->> 'event_id' AS uuid)
    WHERE n.organization_id = :o AND n.kind = 'matched'
    """
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contacts", type=int, default=10_000, help="how many wait (default 10000)")
    parser.add_argument("--instants", type=int, default=30, help="on how many different timeouts (default 30)")
    parser.add_argument("--rate", type=float, default=200, help="events per second (default 200)")
    parser.add_argument("--seconds", type=float, default=20, help="for how long (default 20)")
    parser.add_argument("--batch", type=int, default=10, help="events to a request (default 10)")
    parser.add_argument("--waiting", type=int, default=0, help="then let so many more wait, and weigh the worker (default 0: do not)")
    parser.add_argument("--json", action="store_true", help="one line on standard output")


def run(arguments: argparse.Namespace) -> int:
    """0: measured, and the goals met. 1: a goal missed. 2: the installation could not be started."""
    return conclude("events", measure(arguments), as_json=arguments.json, met=lambda result: all(result["goals"].values()))


async def measure(wanted: argparse.Namespace) -> dict[str, Any]:
    async with private_installation() as installation, installation.api() as api:
        journey_id = await _publish(api, wanted.instants)
        people = addresses("waiting", wanted.contacts)
        await _let_wait(api, installation, journey_id, "first", people)
        _say(f"{wanted.contacts} contacts wait on {wanted.instants} instants")
        sent = await _send(api, people[: int(wanted.rate * wanted.seconds)], wanted.rate, wanted.batch)
        found = await _until_matched(installation, sent["events"])
        result = {"contacts": wanted.contacts, "instants": wanted.instants, **sent, **found, "lost": sent["events"] - found["matched"]}
        result["goals"] = {"no_event_lost": result["lost"] == 0, "p99_below_1_s": found["p99_s"] < GOAL_SECONDS}
        if wanted.waiting:
            result |= await _weigh(api, installation, journey_id, wanted.waiting)
            result["goals"]["below_500_mb"] = result["worker_mb"] < GOAL_MEGABYTES
    return result


def _say(words: str) -> None:
    print(f"bench events: {words}", file=sys.stderr, flush=True)


async def _publish(api: Api, instants: int) -> str:
    """A split has at most twenty arms, so it is split twice."""
    groups = [range(first, min(first + ARMS, instants)) for first in range(0, instants, ARMS)]
    parts = {f"part{number}": _split(f"wait{wait}" for wait in group) for number, group in enumerate(groups)}
    waits = {f"wait{number}": _wait(number + 1) for number in range(instants)}
    steps = {"part": _split([*parts, "thanks"]), **parts, **waits, "thanks": {"kind": "exit", "reason": "bought"}}
    steps["part"]["arms"][-1]["weight"] = 0  # a split has two arms at least
    journey = await api.post("/v1/journeys", {"name": "Waiting", "draft": {"start": "part", "steps": steps}})
    await api.post(f"/v1/journeys/{journey['id']}/versions")
    return str(journey["id"])


def _split(targets: Iterable[str]) -> dict[str, Any]:
    return {"kind": "split", "arms": [{"weight": 1, "next": target} for target in targets]}


def _wait(days: int) -> dict[str, Any]:
    return {"kind": "wait_for", "events": [{"event": "bought", "next": "thanks"}], "timeout": f"P{days}D", "timeout_next": None}


async def _let_wait(api: Api, installation: Installation, journey_id: str, tag: str, people: Sequence[str]) -> None:
    """Each of these people is a contact whose run waits."""
    await import_contacts(api, people, None, tags=tag)
    segment = await api.post("/v1/segments", {"name": tag, "rule": {"tag": tag}})
    campaign_id = await launch(api, tag, journey_id, segment_id=segment["id"])
    while (await api.get(f"/v1/campaigns/{campaign_id}"))["progress"]["runs"]["waiting"] < len(people):
        await asyncio.sleep(1)


async def _send(api: Api, people: Sequence[str], rate: float, batch: int) -> dict[str, Any]:
    """One event each, `batch` to a request, at a steady rate whatever the answers take."""
    taken: list[float] = []

    async def one(emails: Sequence[str]) -> None:
        began = time.perf_counter()
        said = [{"id": f"bought by {email}", "name": "bought", "email": email} for email in emails]
        await api.post("/v1/events", said, keyed=False)
        taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for first in range(0, len(people), batch):
            await asyncio.sleep(max(0.0, began + first / rate - time.perf_counter()))
            group.create_task(one(people[first : first + batch]))
    seconds = time.perf_counter() - began
    return {"events": len(people), "events_per_s": round(len(people) / seconds, 1), "accepted_p99_s": _percentile(sorted(taken), 0.99)}


async def _until_matched(installation: Installation, events: int, patience: float = 120) -> dict[str, Any]:
    """From the acceptance of an event to its run's next step: by the workflow's clock, and by the record of it."""
    database = Database(installation.described["database_url"])
    deadline = time.monotonic() + patience
    try:
        while True:
            async with database.organization(installation.organization_id) as session:
                rows = (await session.execute(_LATENCIES, {"o": installation.organization_id})).all()
            if len(rows) >= events or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
    finally:
        await database.close()
    moved, recorded = sorted(float(row.moved) for row in rows), sorted(float(row.recorded) for row in rows)
    return {
        "matched": len(rows),
        "p50_s": _percentile(moved, 0.5),
        "p99_s": _percentile(moved, 0.99),
        "recorded_p50_s": _percentile(recorded, 0.5),
        "recorded_p99_s": _percentile(recorded, 0.99),
    }


def _percentile(ascending: Sequence[float], part: float) -> float:
    return round(ascending[min(len(ascending) - 1, int(len(ascending) * part))], 3) if ascending else float("inf")


async def _weigh(api: Api, installation: Installation, journey_id: str, waiting: int) -> Mapping[str, Any]:
    before = _megabytes(installation)
    began = time.perf_counter()
    await _let_wait(api, installation, journey_id, "second", addresses("heavy", waiting))
    found = {
        "waiting": waiting,
        "seconds_to_wait": round(time.perf_counter() - began, 1),
        "worker_mb_before": before,
        "worker_mb_on_arrival": _megabytes(installation),
    }
    await asyncio.sleep(SETTLES)
    return found | {"worker_mb": _megabytes(installation)}


def _megabytes(installation: Installation) -> float:
    return round(psutil.Process(installation.pids()["worker"]).memory_info().rss / 1024**2, 1)
