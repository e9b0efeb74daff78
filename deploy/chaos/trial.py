"""One trial: a campaign under way, kills, the wait until it is at rest, the verdict."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from deploy.bootstrap import ORGANIZATION_SLUG
from deploy.chaos.judge import Expected, Kill, Verdict, judge
from deploy.chaos.killing import Killer, NotRecovered
from deploy.chaos.plan import Planned, plan_kills
from deploy.chaos.record import count_received, read_outcome
from deploy.environment import ROOT
from deploy.trial.api import Api
from deploy.trial.audience import addresses, import_contacts
from deploy.trial.campaign import Made, TooSlow, at_rest, launch, make_connection, make_topic, publish_journey, until_at_rest
from deploy.trial.installation import Installation, private_environment, private_installation

Say = Callable[[str], None]

SENDS = 2
WAIT = "PT3S"  # between them
SECONDS_PER_KILL = 9.0  # roughly: pause, recovery, and the next attempt of what was broken off
FLOWS_WITHIN = 20.0  # seconds until messages arrive again after a kill; then the next kill comes all the same
RESTS_WITHIN = 240.0
REACH = timedelta(seconds=5)  # from handing over to the answer's being written down, generously


@dataclass(frozen=True)
class Trial:
    """`contacts` who agreed; a twentieth as many more did not. `state` None: a temporary directory."""

    contacts: int
    kills: int
    seed: int
    state: Path | None = None

    @property
    def rate(self) -> float:
        """Messages per second, slow enough for the campaign to outlast the kills."""
        return max(2.0, self.contacts * SENDS / (self.kills * SECONDS_PER_KILL))

    @property
    def page_size(self) -> int:
        """Ten workflows or so, so that every kill meets several."""
        return max(1, min(200, self.contacts // 10))


@dataclass(frozen=True)
class Report:
    """What `leadstats chaos` prints."""

    trial: Trial
    verdict: Verdict
    kills: Sequence[Kill]
    kills_under_way: int  # while the campaign was
    audit_ok: bool
    conservation: bool
    seconds: float
    trouble: str | None = None  # a part that did not come back, a campaign that did not come to rest

    @property
    def ok(self) -> bool:
        return self.verdict.ok and self.audit_ok and self.conservation and self.trouble is None

    def document(self) -> dict[str, Any]:
        counts = asdict(self.verdict)
        lost_by = counts.pop("lost_by")
        return {
            "lost": counts.pop("lost"),
            "duplicates": counts.pop("duplicates"),
            "audit_ok": self.audit_ok,
            **counts,
            "conservation": self.conservation,
            "kills": dict(Counter(kill.part for kill in self.kills)),
            "kills_under_way": self.kills_under_way,
            "longest_recovery_seconds": round(max((kill.back_at - kill.at).total_seconds() for kill in self.kills), 1) if self.kills else 0,
            "contacts": self.trial.contacts,
            "seed": self.trial.seed,
            "seconds": round(self.seconds, 1),
            **({"lost_by": lost_by} if lost_by else {}),
            **({"trouble": self.trouble} if self.trouble else {}),
            "ok": self.ok,
        }


async def run_trial(trial: Trial, say: Say) -> Report:
    """The report; the installation is gone, and its state too unless `trial.state` names a place for it.

    Raises:
        NotStarted: the installation did not become ready.
    """
    began = time.monotonic()
    async with private_installation(trial.state) as installation:
        say(f"installation ready after {time.monotonic() - began:.0f} s; seed {trial.seed}")
        async with installation.api() as api:
            return await _Course(trial, installation, api, say, began).run()


class _Course:
    def __init__(self, trial: Trial, installation: Installation, api: Api, say: Say, began: float) -> None:
        self.trial = trial
        self.installation = installation
        self.api = api
        self.say = say
        self.began = began
        self.kills: list[Kill] = []
        self.kills_under_way = 0
        self.trouble: str | None = None
        self.connection_id = ""

    async def run(self) -> Report:
        invited, made = addresses("invited", self.trial.contacts), await self._prepare()
        campaign_id = await launch(self.api, "Chaos", made.journey_id, self.trial.page_size)
        self.say(f"campaign of {2 * self.trial.contacts} messages launched, {self.trial.rate:.1f} per second")
        try:
            await self._kill_all(campaign_id)
            self.say("all kills done; waiting until every run is finished or waits for a person")
            await self.api.patch(f"/v1/connections/{self.connection_id}", {"rate_per_second": None})
            await until_at_rest(self.api, campaign_id, RESTS_WITHIN)
        except (NotRecovered, TooSlow) as error:
            self.trouble = str(error)
        verdict = judge(Expected(frozenset(invited), made.subjects), await read_outcome(self.installation, campaign_id), self.kills, REACH)
        conserved = (await self.api.get(f"/v1/campaigns/{campaign_id}"))["progress"]["conservation"]["holds"] is True
        audit_ok = await verify_audit(self.installation)
        seconds = time.monotonic() - self.began
        return Report(self.trial, verdict, self.kills, self.kills_under_way, audit_ok, conserved, seconds, self.trouble)

    async def _prepare(self) -> Made:
        topic_id = await make_topic(self.api, "chaos")
        await import_contacts(self.api, addresses("invited", self.trial.contacts), "chaos")
        await import_contacts(self.api, addresses("uninvited", max(1, self.trial.contacts // 20)), None)
        self.connection_id = await make_connection(self.api, self.installation, "Chaos", rate_per_second=self.trial.rate)
        return await publish_journey(self.api, "Chaos", topic_id, self.connection_id, SENDS, WAIT)

    async def _kill_all(self, campaign_id: str) -> None:
        killer = Killer(self.installation, await self.installation.temporal())
        for number, planned in enumerate(plan_kills(self.trial.seed, self.trial.kills), 1):
            await self._kill(killer, planned, number)
            self.kills_under_way += not at_rest(await self.api.get(f"/v1/campaigns/{campaign_id}"))

    async def _kill(self, killer: Killer, planned: Planned, number: int) -> None:
        before = await count_received(self.installation)
        kill = await killer.carry_out(planned)
        self.kills.append(kill)
        received = await self._until_mail_flows()
        took = (kill.back_at - kill.at).total_seconds()
        self.say(f"kill {number} of {self.trial.kills}: {kill.part}, back after {took:.1f} s; {before} → {received} messages")

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


async def verify_audit(installation: Installation) -> bool:
    """The organization's record, exported to a file and verified from the file alone, as an auditor would."""
    file = str(installation.log.with_name("audit-export.jsonl"))
    state = str(installation.state.path)
    exported = await _leadstats("audit", "export", "--organization", ORGANIZATION_SLUG, "--output", file, "--state", state)
    code, answer = await _leadstats("audit", "verify", file, "--json") if exported[0] == 0 else exported
    return code == 0 and bool(json.loads(answer)["ok"])


async def _leadstats(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "leadstats.py"),
        *arguments,
        env=private_environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, output.decode()
