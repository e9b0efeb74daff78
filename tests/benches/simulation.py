"""`leadstats bench simulation`: how fast a journey of ten steps is simulated for a thousand contacts over ninety virtual days.

Client, API and database share the machine's processors, so the figures are a lower bound.
"""

import argparse
import time
from statistics import median
from typing import Any

from deploy.trial.api import Api
from deploy.trial.audience import addresses, import_contacts
from deploy.trial.campaign import HTML, make_topic
from deploy.trial.installation import private_installation
from tests.benches.measuring import conclude

GOAL_SECONDS = 5.0
START = "2026-03-02T09:00:00Z"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--contacts", type=int, default=1_000, help="how many (default 1000, at most 5000)")
    parser.add_argument("--sends", type=int, default=5, help="messages to each, with a wait after each (default 5)")
    parser.add_argument("--days", type=int, default=90, help="virtual days (default 90)")
    parser.add_argument("--rounds", type=int, default=3, help="how often; the median counts (default 3)")
    parser.add_argument("--json", action="store_true", help="one line on standard output")


def run(arguments: argparse.Namespace) -> int:
    """0: measured, and the goal met. 1: the goal missed. 2: the installation could not be started."""
    return conclude("simulation", measure(arguments), as_json=arguments.json, met=lambda result: all(result["goals"].values()))


async def measure(wanted: argparse.Namespace) -> dict[str, Any]:
    async with private_installation() as installation, installation.api() as api:
        topic = await make_topic(api, "news")
        await import_contacts(api, addresses("simulated", wanted.contacts), "news", tags="all")
        segment = await api.post("/v1/segments", {"name": "All", "rule": {"tag": "all"}})
        await api.patch("/v1/organization", {"quiet_hours": {"email": {"start": "21:00", "end": "08:00"}}})
        journey = await api.post("/v1/journeys", {"name": "Course", "draft": await _draft(api, topic, wanted.sends, wanted.days)})
        asked = {"start": START, "sample": {"size": wanted.contacts, "segment_id": segment["id"]}, "paths": 3}
        taken = []
        for _ in range(wanted.rounds):
            began = time.perf_counter()
            found = await api.post(f"/v1/journeys/{journey['id']}/simulations", asked, keyed=False)
            taken.append(time.perf_counter() - began)
    seconds = median(taken)
    steps = sum(step["arrived"] for step in found["summary"]["steps"])
    result = {
        "contacts": found["summary"]["contacts"],
        "steps": len(found["summary"]["steps"]),
        "days": wanted.days,
        "messages": found["summary"]["messages"],
        "seconds": round(seconds, 2),
        "slowest_s": round(max(taken), 2),
        "contacts_per_s": round(found["summary"]["contacts"] / seconds),
        "step_visits_per_s": round(steps / seconds),
        "messages_per_s": round(found["summary"]["messages"] / seconds),
    }
    result["goals"] = {"everybody": found["summary"]["contacts"] == wanted.contacts, "below_5_s": seconds < GOAL_SECONDS}
    return result


async def _draft(api: Api, topic: str, sends: int, days: int) -> dict[str, Any]:
    """A message, a wait, a message, a wait, …"""
    content = {"subject": "Hello {{ contact.first_name }}", "html": HTML, "text": "Hello {{ contact.first_name }}: {{ unsubscribe_url }}"}
    template = await api.post("/v1/templates", {"name": "Course", "channel": "email", **content})
    send = {"kind": "send", "template_id": template["id"], "topic_id": topic}
    steps: dict[str, Any] = {}
    for number in range(sends):
        steps[f"mail{number}"] = {**send, "next": f"pause{number}"}
        onward = f"mail{number + 1}" if number + 1 < sends else None
        steps[f"pause{number}"] = {"kind": "wait", "duration": f"PT{days * 86_400 / sends:.0f}S", "next": onward}
    return {"start": "mail0", "steps": steps}
