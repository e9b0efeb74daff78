"""`leadstats bench api`: requests per second and latency of a few routes, over HTTP, on an installation of its own.

The client shares the machine's processors with the server, so the figures are a lower bound.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

from deploy.trial.api import Api
from deploy.trial.audience import addresses, import_contacts
from deploy.trial.campaign import launch, make_connection, make_topic, publish_journey, until_at_rest
from deploy.trial.installation import private_installation
from tests.benches.measuring import conclude

Request = Callable[[], Awaitable[Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contacts", type=int, default=10_000, help="how many contacts there are (default 10000)")
    parser.add_argument("--requests", type=int, default=400, help="per route (default 400)")
    parser.add_argument("--concurrency", type=int, default=8, help="requests in the air (default 8)")
    parser.add_argument("--json", action="store_true", help="one line on standard output")


def run(arguments: argparse.Namespace) -> int:
    """0: measured. 2: the installation could not be started."""
    return conclude("api", measure(arguments.contacts, arguments.requests, arguments.concurrency), as_json=arguments.json, shown=_table)


async def measure(contacts: int, requests: int, concurrency: int) -> dict[str, Any]:
    """By route: requests per second, and percentiles of the latency in milliseconds."""
    async with private_installation() as installation, installation.api() as api:
        topic_id = await make_topic(api, "bench")
        await import_contacts(api, addresses("contact", contacts), "bench")
        connection_id = await make_connection(api, installation, "Discard", discard=True)
        journey = await publish_journey(api, "Bench", topic_id, connection_id, 1, None)
        campaign_id = await launch(api, "Bench", journey.journey_id)
        await until_at_rest(api, campaign_id, 600, every=2)
        routes = {}
        for name, request in _requests(api, campaign_id).items():
            await _drive(request, concurrency, concurrency)  # warms pools and caches
            routes[name] = _summary(*await _drive(request, requests, concurrency))
    return {"contacts": contacts, "requests": requests, "concurrency": concurrency, "routes": routes}


def _requests(api: Api, campaign_id: str) -> Mapping[str, Request]:
    numbers = count(1)
    return {
        "GET /v1/health": lambda: api.get("/v1/health"),
        "GET /v1/contacts?limit=50": lambda: api.get("/v1/contacts", limit=50),
        "POST /v1/contacts": lambda: api.post("/v1/contacts", {"email": f"new{next(numbers)}@example.com", "first_name": "New"}),
        "GET /v1/campaigns/{id}": lambda: api.get(f"/v1/campaigns/{campaign_id}"),
        "GET /v1/runs?limit=50": lambda: api.get("/v1/runs", limit=50),
    }


async def _drive(request: Request, times: int, concurrency: int) -> tuple[float, list[float]]:
    """Seconds in all, and seconds of each request, ascending."""
    left = iter(range(times))
    taken: list[float] = []

    async def ask() -> None:
        for _ in left:
            began = time.perf_counter()
            await request()
            taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(ask())
    return time.perf_counter() - began, sorted(taken)


def _summary(seconds: float, taken: list[float]) -> dict[str, float]:
    percentile = {name: round(taken[min(len(taken) - 1, int(len(taken) * part))] * 1000, 1) for name, part in _PERCENTILES.items()}
    return {"requests_per_s": round(len(taken) / seconds, 1), **percentile}


_PERCENTILES = {"p50_ms": 0.50, "p90_ms": 0.90, "p99_ms": 0.99}


def _table(result: dict[str, Any]) -> str:
    lines = [f"{result['contacts']} contacts, {result['concurrency']} requests in the air", ""]
    lines += [f"{'':<28} {'per second':>10} {'p50 ms':>8} {'p90 ms':>8} {'p99 ms':>8}"]
    for name, row in result["routes"].items():
        lines.append(f"{name:<28} {row['requests_per_s']:>10} {row['p50_ms']:>8} {row['p90_ms']:>8} {row['p99_ms']:>8}")
    return "\n".join(lines)
