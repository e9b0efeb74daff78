"""One phase's kills, each followed by the wait until work flows again."""

import asyncio
import time
from collections.abc import Callable

from deploy.chaos.judge import Kill
from deploy.chaos.killing import Killer
from deploy.chaos.plan import Planned
from deploy.chaos.record import count_received
from deploy.trial.installation import Installation

Say = Callable[[str], None]

FLOWS_WITHIN = 20.0  # seconds until messages arrive again after a kill; then the next kill comes all the same


class Fire:
    """`kills`: those that were carried out. `planned`: how many there will be, for what is said."""

    def __init__(self, installation: Installation, killer: Killer, planned: int, say: Say) -> None:
        self.installation = installation
        self.killer = killer
        self.planned = planned
        self.say = say
        self.kills: list[Kill] = []
        self.under_way = 0  # kills after which the work was not over

    async def kill(self, planned: Planned) -> None:
        """The part was killed, answers again, and mail arrives again or has not for a while.

        Raises:
            NotRecovered: it does not answer again.
        """
        before = await count_received(self.installation)
        kill = await self.killer.carry_out(planned)
        self.kills.append(kill)
        received = await self._until_mail_flows()
        took = (kill.back_at - kill.at).total_seconds()
        self.say(f"kill {len(self.kills)} of {self.planned}: {kill.part}, back after {took:.1f} s; {before} → {received} messages")

    async def _until_mail_flows(self) -> int | None:
        """Messages arrive again, so that the next kill meets work in flight; or `FLOWS_WITHIN` has passed."""
        first, deadline = await count_received(self.installation), time.monotonic() + FLOWS_WITHIN
        while time.monotonic() < deadline:
            await asyncio.sleep(0.25)
            now = await count_received(self.installation)
            if now is not None and first is not None and now > first:
                return now
            first = now if first is None else first
        return first
