"""The second phase of a trial: runs that failed for good are replayed in bulk while parts are killed."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.chaos.fire import Fire
from deploy.chaos.judge_replays import Operation
from deploy.chaos.plan import Planned
from deploy.trial.api import Api
from deploy.trial.campaign import Made, TooSlow, at_rest, launch, publish_journey, until_all_wait, until_at_rest

SENDS = 2  # the first arrives, the second fails
EVENT = "go on"
EVENTS_AT_ONCE = 500  # the API takes 1,000
FAULT_SEEN_AFTER = 1.0  # seconds; the inbox looks every quarter of a second
PREPARED_WITHIN = 240.0
OPERATES_WITHIN = 180.0  # an operation whose workflow was lost is started again within a minute
RESTS_WITHIN = 240.0
REASON = "the mail server is back"


@dataclass(frozen=True)
class Setting:
    """Whose runs fail, over which connection. `rate`: messages per second of the replays. `everyone`: who is in the audience."""

    topic_id: str
    connection_id: str
    everyone: Sequence[str]
    invited: int
    rate: float
    page_size: int


class Replaying:
    """Prepared in peace, then under fire. What it leaves is for the judge."""

    def __init__(self, api: Api, setting: Setting, fire: Fire) -> None:
        self.api = api
        self.setting = setting
        self.fire = fire
        self.operations: list[Operation] = []
        self.campaign_id = ""
        self.made = Made("", {})

    async def prepare(self) -> None:
        """Every invited contact's run has sent its first message, and needs attention at the second.

        Raises:
            TooSlow: not within minutes.
        """
        topic_id, connection_id = self.setting.topic_id, self.setting.connection_id
        self.made = await publish_journey(self.api, "Outage", topic_id, connection_id, SENDS, None, event=EVENT)
        self.campaign_id = await launch(self.api, "Outage", self.made.journey_id, self.setting.page_size)
        await until_all_wait(self.api, self.campaign_id, PREPARED_WITHIN)
        await self.api.post("/v1/sandbox/faults", {"phase": "data", "action": "refuse"})
        await asyncio.sleep(FAULT_SEEN_AFTER)
        for first in range(0, len(self.setting.everyone), EVENTS_AT_ONCE):
            emails = self.setting.everyone[first : first + EVENTS_AT_ONCE]
            said = [{"id": f"{EVENT}: {email}", "name": EVENT, "email": email} for email in emails]
            await self.api.post("/v1/events", said, keyed=False)
        await until_at_rest(self.api, self.campaign_id, PREPARED_WITHIN)
        await self.api.delete("/v1/sandbox/faults")
        await self.api.patch(f"/v1/connections/{connection_id}", {"rate_per_second": self.setting.rate})
        await asyncio.sleep(FAULT_SEEN_AFTER)

    async def carry_out(self, plan: Sequence[Planned]) -> None:
        """All failed runs have been replayed, one operation for every two kills, and are at rest.

        Raises:
            NotRecovered: a killed part did not come back.
            TooSlow: an operation was not completed, or the runs not at rest, within minutes.
        """
        pairs = [plan[first : first + 2] for first in range(0, len(plan), 2)]
        at_once = -(-self.setting.invited // len(pairs))
        for first, *rest in pairs:
            await self._operate(at_once, first)
            for planned in rest:
                await self._kill(planned)
        self.fire.say("all kills done; waiting until every replay is finished or waits for a person")
        await self.api.patch(f"/v1/connections/{self.setting.connection_id}", {"rate_per_second": None})
        await until_at_rest(self.api, self.campaign_id, RESTS_WITHIN)

    async def _operate(self, at_once: int, planned: Planned) -> None:
        """The next `at_once` failed runs are replayed while a part is killed. What an unknown message stopped is none of them."""
        selection = {"campaign_id": self.campaign_id, "statuses": ["needs_attention"], "failure_classes": ["content"]}
        wanted = {"command": "replay", "filter": selection, "arguments": {"from_step": "send1"}, "limit": at_once}
        preview = await self.api.post("/v1/run-operations/previews", wanted)
        if not preview["runs"]:
            return await self._kill(planned)
        operation, killed = await asyncio.gather(self._execute(preview["id"]), self._kill(planned), return_exceptions=True)
        for outcome in (killed, operation):
            if isinstance(outcome, BaseException):
                raise outcome
        self.operations.append(_operation(operation))
        self.fire.say(f"operation {len(self.operations)}: {operation['progress']}")
        return None

    async def _execute(self, preview_id: str) -> Mapping[str, Any]:
        operation: dict[str, Any] = await self.api.post("/v1/run-operations", {"preview_id": preview_id, "reason": REASON})
        deadline = time.monotonic() + OPERATES_WITHIN
        while operation["status"] == "running":
            if time.monotonic() > deadline:
                self.operations.append(_operation(operation))
                raise TooSlow(f"A bulk replay was not completed within {OPERATES_WITHIN:.0f} s: {operation['progress']}")
            await asyncio.sleep(0.3)
            operation = await self.api.get(f"/v1/run-operations/{preview_id}")
        return operation

    async def _kill(self, planned: Planned) -> None:
        await self.fire.kill(planned)
        self.fire.under_way += not at_rest(await self.api.get(f"/v1/campaigns/{self.campaign_id}"))


def _operation(told: Mapping[str, Any]) -> Operation:
    progress, effects = told["progress"], told["preview"]["effects"]
    counts = {name: progress[name] for name in ("done", "unchanged", "failed", "left_alone")}
    executed, completed = told["executed_at"], told["completed_at"]
    return Operation(
        status=told["status"],
        runs=told["runs"],
        **counts,
        kept=effects["kept"],
        to_do=effects["to_do"],
        executed_at=datetime.fromisoformat(executed) if executed else None,
        completed_at=datetime.fromisoformat(completed) if completed else None,
    )
