"""`leadstats bench throughput`: many runs in one workflow against one workflow per run.

Both ways run on one installation, one after the other in turns: the same server, activities, journey and contacts, real SMTP into
the inbox that throws messages away, PostgreSQL, audit on. Only the page size of the campaigns differs.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from api.commands.connections import SANDBOX_CONCURRENCY
from deploy.trial.api import Api
from deploy.trial.audience import addresses, import_contacts
from deploy.trial.campaign import Made, launch, make_connection, make_topic, publish_journey, until_at_rest
from deploy.trial.installation import Installation, private_installation
from tests.benches.cost import cpu_seconds, spent
from tests.benches.histories import count_histories
from tests.benches.measuring import conclude

BATCHED, SINGLE = 200, 1  # runs per workflow
SENDS = 3
WARM = 200  # contacts of the campaign that is not counted
SECONDS_PER_MESSAGE = 0.2  # an upper bound: a campaign that is slower has failed
GOALS = {"ratio": 10.0, "temporal_events_per_message": 0.5, "flat_within": 0.25}  # at least; at most; at most


@dataclass(frozen=True)
class Round:
    """One campaign, measured from its launch to the last message's being settled."""

    contacts: int
    page_size: int
    messages: int
    seconds: float
    cpu: dict[str, float]  # processor seconds by part
    workflows: int
    events: int
    activities: float

    @property
    def messages_per_s(self) -> float:
        return self.messages / self.seconds

    @property
    def wall_ms(self) -> float:
        return self.seconds / self.messages * 1000

    @property
    def cpu_ms(self) -> float:
        return sum(self.cpu.values()) / self.messages * 1000

    def document(self) -> dict[str, Any]:
        return {
            "contacts": self.contacts,
            "messages": self.messages,
            "seconds": round(self.seconds, 2),
            "messages_per_s": round(self.messages_per_s, 1),
            "wall_ms_per_message": round(self.wall_ms, 3),
            "cpu_ms_per_message": round(self.cpu_ms, 3),
            "cpu_ms_per_message_by_part": {part: round(seconds / self.messages * 1000, 3) for part, seconds in self.cpu.items()},
            "temporal_events_per_message": round(self.events / self.messages, 3),
            "activities_per_message": round(self.activities / self.messages, 3),
            "workflows": self.workflows,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contacts", type=int, default=500, help="of each campaign of the comparison (default 500)")
    parser.add_argument("--rounds", type=int, default=2, help="how often both ways take turns; 0 leaves the comparison out (default 2)")
    parser.add_argument(
        "--scale", type=_sizes, default=[1000, 10_000, 50_000], metavar="N,N,…", help="audiences for the cost per message; empty for none"
    )
    parser.add_argument("--page-size", type=int, default=BATCHED, help=f"runs per workflow when batched (default {BATCHED})")
    parser.add_argument(
        "--concurrency",
        type=int,
        default=SANDBOX_CONCURRENCY,
        help=f"messages in the air per connection (default {SANDBOX_CONCURRENCY}, as the product's sandbox connection has)",
    )
    parser.add_argument("--json", action="store_true", help="one line on standard output; progress goes to standard error")


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part.strip()]


def run(arguments: argparse.Namespace) -> int:
    """0: the goals are met. 1: not. 2: the installation could not be started."""
    return conclude("throughput", measure(arguments), as_json=arguments.json, met=lambda result: bool(result["ok"]))


async def measure(wanted: argparse.Namespace) -> dict[str, Any]:
    """The figures that `leadstats bench throughput` prints."""
    async with private_installation() as installation, installation.api() as api:
        bench = await _Bench.prepare(installation, api, _sizes_needed(wanted), wanted.concurrency)
        await bench.campaign(min(wanted.contacts, WARM), wanted.page_size)  # fills caches and pools
        batched: list[Round] = []
        single: list[Round] = []
        for _ in range(wanted.rounds):
            batched.append(await bench.campaign(wanted.contacts, wanted.page_size))
            single.append(await bench.campaign(wanted.contacts, SINGLE))
        scaled = [await bench.campaign(size, wanted.page_size) for size in wanted.scale]
    return _verdict(_compared(batched, single) | _scaled(scaled) | _conditions(wanted))


def _sizes_needed(wanted: argparse.Namespace) -> list[int]:
    return sorted({min(wanted.contacts, WARM), wanted.contacts, *wanted.scale})


def _conditions(wanted: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {"page_size": wanted.page_size, "messages_in_the_air": wanted.concurrency, "processors": os.cpu_count()}


class _Bench:
    """One installation with contacts; segments name the first so many of them."""

    def __init__(self, installation: Installation, api: Api, journey: Made, segments: dict[int, str]) -> None:
        self.installation = installation
        self.api = api
        self.journey = journey
        self.segments = segments
        self.campaigns = 0

    @classmethod
    async def prepare(cls, installation: Installation, api: Api, sizes: Sequence[int], concurrency: int) -> "_Bench":
        """`sizes`: of the audiences, ascending. Each consists of the first contacts of the next larger one."""
        topic_id = await make_topic(api, "bench")
        everyone = addresses("contact", sizes[-1])
        segments = {}
        for smaller, size in zip([0, *sizes], sizes, strict=False):
            tags = ";".join(f"first-{larger}" for larger in sizes if larger >= size)
            await import_contacts(api, everyone[smaller:size], "bench", tags)
            rule = {"tag": f"first-{size}"}
            segments[size] = str((await api.post("/v1/segments", {"name": f"First {size}", "rule": rule}))["id"])
        connection_id = await make_connection(api, installation, "Discard", discard=True, concurrency=concurrency)
        journey = await publish_journey(api, "Bench", topic_id, connection_id, SENDS, None)
        return cls(installation, api, journey, segments)

    async def campaign(self, contacts: int, page_size: int) -> Round:
        """One campaign to its end."""
        self.campaigns += 1
        before = cpu_seconds(self.installation.pids())
        campaign_id = await launch(self.api, f"Bench {self.campaigns}", self.journey.journey_id, page_size, self.segments[contacts])
        messages = contacts * SENDS
        ended = await until_at_rest(self.api, campaign_id, 60 + messages * SECONDS_PER_MESSAGE, every=max(0.5, messages / 20_000))
        cpu = spent(before, cpu_seconds(self.installation.pids()))
        if ended["progress"]["deliveries"] != {"accepted": messages}:
            raise RuntimeError(f"not every message was accepted: {ended['progress']}")
        histories = await count_histories(await self.installation.temporal(), campaign_id)
        measured = Round(
            contacts,
            page_size,
            messages,
            await _seconds(self.installation, campaign_id),
            cpu,
            histories.workflows,
            histories.events,
            histories.activities,
        )
        print(f"bench: page size {page_size}: {json.dumps(measured.document())}", file=sys.stderr, flush=True)
        return measured


async def _seconds(installation: Installation, campaign_id: str) -> float:
    """From the campaign's launch to its last message's being settled, by the database's clock."""
    url, organization_id = installation.described["database_url"], str(installation.organization_id)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SELECT set_config('leadstats.organization_id', %s, false)", [organization_id])
        found = await connection.execute(
            """SELECT extract(epoch FROM max(d.settled_at) - c.created_at) FROM campaigns c JOIN deliveries d ON d.campaign_id = c.id
               WHERE c.id = %s GROUP BY c.created_at""",
            [campaign_id],
        )
        row = await found.fetchone()
    assert row is not None
    return float(row[0])


def _compared(batched: Sequence[Round], single: Sequence[Round]) -> dict[str, Any]:
    if not batched:
        return {}
    ratios = [many.messages_per_s / one.messages_per_s for many, one in zip(batched, single, strict=True)]
    ratio = statistics.median(ratios)
    events = max(one.events / one.messages for one in batched)
    return {
        "ratio": round(ratio, 2),
        "messages_per_s": round(statistics.median(one.messages_per_s for one in batched), 1),
        "single_messages_per_s": round(statistics.median(one.messages_per_s for one in single), 1),
        "temporal_events_per_message": round(events, 3),
        "single_temporal_events_per_message": round(max(one.events / one.messages for one in single), 2),
        "rounds": {"batched": [one.document() for one in batched], "single": [one.document() for one in single]},
    }


def _scaled(scaled: Sequence[Round]) -> dict[str, Any]:
    """`flat_within`: by how much the dearest message exceeds the cheapest, in wall time and in processor time."""
    if not scaled:
        return {}
    wall, cpu = [one.wall_ms for one in scaled], [one.cpu_ms for one in scaled]
    return {
        "flat_within": round(max(wall) / min(wall) - 1, 3),
        "cpu_flat_within": round(max(cpu) / min(cpu) - 1, 3),
        "scale": [one.document() for one in scaled],
    }


def _verdict(result: dict[str, Any]) -> dict[str, Any]:
    """The same with `goals`: those that were measured, and whether each is met."""
    goals = {name: result[name] >= limit if name == "ratio" else result[name] <= limit for name, limit in GOALS.items() if name in result}
    return result | {"goals": goals, "ok": all(goals.values())}
