"""`leadstats bench moves`: how fast a publish plan moves waiting runs to another version.

A campaign lets contacts wait, `--page-size` of them to a workflow (1: as runs that were entered one by one), and a plan moves all of them.
Client and server share the machine's processors, so the figures are a lower bound.
"""

import argparse
import asyncio
import time
from typing import Any

import psutil

from deploy.trial.api import Api
from deploy.trial.audience import addresses, import_contacts
from deploy.trial.campaign import launch
from deploy.trial.installation import Installation, private_installation
from tests.benches.measuring import conclude


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=500, help="how many wait (default 500)")
    parser.add_argument("--page-size", type=int, default=1, help="how many of them in one workflow (default 1)")
    parser.add_argument("--json", action="store_true", help="one line on standard output")


def run(arguments: argparse.Namespace) -> int:
    """0: measured. 1: not every run was moved. 2: the installation could not be started."""
    measurement = measure(arguments.runs, arguments.page_size)
    return conclude("moves", measurement, as_json=arguments.json, met=lambda result: bool(result["moved"] == arguments.runs))


async def measure(runs: int, page_size: int) -> dict[str, Any]:
    async with private_installation() as installation, installation.api() as api:
        journey_id = str((await api.post("/v1/journeys", {"name": "Waiting", "draft": _draft("first", "P30D")}))["id"])
        await api.post(f"/v1/journeys/{journey_id}/versions")
        await import_contacts(api, addresses("moves", runs), None)
        campaign_id = await launch(api, "Waiting", journey_id, page_size)
        while (await api.get(f"/v1/campaigns/{campaign_id}"))["progress"]["runs"]["waiting"] < runs:
            await asyncio.sleep(0.5)
        revision = (await api.get(f"/v1/journeys/{journey_id}"))["revision"]
        await api.patch(f"/v1/journeys/{journey_id}/draft", {"draft": _draft("second", "P60D")}, {"If-Match": f'"{revision}"'})
        plan = await api.post(f"/v1/journeys/{journey_id}/publish-plans")
        began, spent = time.perf_counter(), _processor_seconds(installation)
        done = await _carried_out(api, f"/v1/journeys/{journey_id}/publish-plans/{plan['id']}", plan["fingerprint"])
        seconds = time.perf_counter() - began
        cost = {name: now - spent[name] for name, now in _processor_seconds(installation).items()}
    moved = done["progress"]["moved"]
    return {
        "runs": runs,
        "page_size": page_size,
        "moved": moved,
        "seconds": round(seconds, 1),
        "runs_per_s": round(moved / seconds, 1),
        "processor_ms_per_run": {name: round(1000 * each / runs, 1) for name, each in cost.items()},
    }


def _processor_seconds(installation: Installation) -> dict[str, float]:
    """By part, with its children: what a busy machine does not change."""
    found = {}
    for name, pid in installation.pids().items():
        process = psutil.Process(pid)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        found[name] = sum(each.user + each.system for each in times)
    return found


def _draft(reason: str, duration: str) -> dict[str, Any]:
    return {
        "start": "wait",
        "steps": {"wait": {"kind": "wait", "duration": duration, "next": "end"}, "end": {"kind": "exit", "reason": reason}},
    }


async def _carried_out(api: Api, path: str, fingerprint: str) -> dict[str, Any]:
    choice = {"version": 1, "step_id": "wait", "choice": "move", "to_step": "wait"}
    await api.put(f"{path}/execution", {"fingerprint": fingerprint, "choices": [choice]})
    while True:
        plan: dict[str, Any] = await api.get(path)
        if plan["status"] == "completed":
            return plan
        await asyncio.sleep(0.25)
