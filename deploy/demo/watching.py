"""Watching a campaign until every run has ended, with a live table, or with plain lines where there is no terminal."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from deploy.demo.api import PublicApi

LOOK_EVERY = 0.5  # seconds
SAY_EVERY = 2.0
STALLED_AFTER = 120.0  # without any change
ENDED = frozenset({"completed", "exited", "cancelled", "needs_attention"})
Progress = Mapping[str, Any]


async def watch(api: PublicApi, campaign_id: str, console: Console) -> None:
    """Returns when no run has anything left to do, or when nothing has changed for two minutes."""
    started = changed = time.monotonic()
    said, last = 0.0, None
    live: AbstractContextManager[Live | None] = Live(console=console, transient=False) if console.is_terminal else nullcontext()
    with live as screen:
        while True:
            campaign = await api.get(f"/v1/campaigns/{campaign_id}")
            now, over = time.monotonic(), _is_over(campaign)
            if screen is not None:
                screen.update(_table(campaign, now - started), refresh=True)
            elif over or now - said >= SAY_EVERY:
                console.print(_line(campaign, now - started), highlight=False, soft_wrap=True)
                said = now
            changed, last = (now, campaign["progress"]) if campaign["progress"] != last else (changed, last)
            if over or now - changed > STALLED_AFTER:
                return
            await asyncio.sleep(LOOK_EVERY)


def _is_over(campaign: Progress) -> bool:
    runs = campaign["progress"]["runs"]
    ended = sum(count for phase, count in runs.items() if phase in ENDED)
    return campaign["audience"] is not None and ended == campaign["audience"]


def _table(campaign: Progress, seconds: float) -> Table:
    progress = campaign["progress"]
    table = Table(title=f"{campaign['name']}, {seconds:.0f} s", title_justify="left", expand=False)
    for heading in ("Runs", "Messages", "Not sent, because"):
        table.add_column(heading, min_width=24, vertical="top")
    table.add_row(_counts(progress["runs"]), _counts(progress["deliveries"]), _counts(progress["refusals"]))
    return table


def _counts(counts: Mapping[str, int]) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", min_width=6)
    for name, count in counts.items():
        if count:
            grid.add_row(f"{count:,}", name.replace("_", " "))
    return grid


def _line(campaign: Progress, seconds: float) -> str:
    progress = campaign["progress"]
    runs = ", ".join(f"{count:,} {phase}" for phase, count in progress["runs"].items() if count) or "none yet"
    sent, refused = progress["deliveries"].get("accepted", 0), sum(progress["refusals"].values())
    return f"{seconds:5.1f} s  runs: {runs}; {sent:,} messages accepted, {refused:,} not sent"
