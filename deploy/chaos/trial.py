"""One trial: a campaign under way, kills, the wait until it is at rest; the same with a bulk replay; the verdicts."""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from deploy.bootstrap import ORGANIZATION_SLUG
from deploy.chaos.fire import Fire, Say
from deploy.chaos.judge import Expected, Kill, Outcome, Verdict, judge
from deploy.chaos.judge_replays import Operation, ReplayVerdict, ends, judge_replays, kills_within
from deploy.chaos.killing import Killer, NotRecovered
from deploy.chaos.plan import plan_kills, plan_replay_kills
from deploy.chaos.record import read_links, read_outcome
from deploy.chaos.replaying import Replaying, Setting
from deploy.environment import ROOT
from deploy.trial.api import Api
from deploy.trial.audience import addresses, import_contacts
from deploy.trial.campaign import Made, TooSlow, at_rest, launch, make_connection, make_topic, publish_journey, until_at_rest
from deploy.trial.installation import Installation, private_environment, private_installation

SENDS = 2
WAIT = "PT3S"  # between them
SECONDS_PER_KILL = 9.0  # roughly: pause, recovery, and the next attempt of what was broken off
RESTS_WITHIN = 240.0
REACH = timedelta(seconds=5)  # from handing over to the answer's being written down, generously


@dataclass(frozen=True)
class Trial:
    """`contacts` who agreed; a twentieth as many more did not. `replay_kills`: during the bulk replay that follows; 0: none follows.
    `state` None: a temporary directory."""

    contacts: int
    kills: int
    seed: int
    state: Path | None = None
    replay_kills: int = 0
    seconds_per_kill: float = SECONDS_PER_KILL

    @property
    def rate(self) -> float:
        """Messages per second, slow enough for the campaign to outlast the kills."""
        return self._rate(self.contacts * SENDS, self.kills)

    @property
    def replay_rate(self) -> float:
        """Likewise for the replays, each of which has one message to send."""
        return self._rate(self.contacts, self.replay_kills)

    @property
    def page_size(self) -> int:
        """Ten workflows or so, so that every kill meets several."""
        return max(1, min(200, self.contacts // 10))

    def _rate(self, messages: int, kills: int) -> float:
        return max(1.0, messages / (kills * self.seconds_per_kill))


@dataclass(frozen=True)
class Phase:
    """What came of one campaign. `kills_under_way`: while the campaign was."""

    verdict: Verdict
    kills: Sequence[Kill]
    kills_under_way: int
    conservation: bool

    @property
    def ok(self) -> bool:
        return self.verdict.ok and self.conservation

    def document(self) -> dict[str, Any]:
        counts = asdict(self.verdict)
        told = {name: counts.pop(name) for name in ("lost_by", "parked_by")}
        return {
            **counts,
            "conservation": self.conservation,
            "kills": dict(Counter(kill.part for kill in self.kills)),
            "kills_under_way": self.kills_under_way,
            "longest_recovery_seconds": round(max((kill.back_at - kill.at).total_seconds() for kill in self.kills), 1) if self.kills else 0,
            **{name: by for name, by in told.items() if by},
        }


@dataclass(frozen=True)
class ReplayPhase:
    """What came of the bulk replay. `replayed`: runs that were."""

    phase: Phase
    replays: ReplayVerdict
    operations: Sequence[Operation]
    replayed: int

    @property
    def ok(self) -> bool:
        return self.phase.ok and self.replays.ok and self.replayed > 0

    def document(self) -> dict[str, Any]:
        return {
            **self.phase.document(),
            **asdict(self.replays),
            "replayed": self.replayed,
            "operations": len(self.operations),
            "kills_within_operations": kills_within(self.operations, self.phase.kills),
        }


@dataclass(frozen=True)
class Report:
    """What `leadstats chaos` prints."""

    trial: Trial
    campaign: Phase
    replay: ReplayPhase | None  # None: not asked for, or never reached
    audit_ok: bool
    seconds: float
    trouble: str | None = None  # a part that did not come back, a campaign that did not come to rest

    @property
    def ok(self) -> bool:
        replayed = self.trial.replay_kills == 0 if self.replay is None else self.replay.ok
        return self.campaign.ok and replayed and self.audit_ok and self.trouble is None

    def document(self) -> dict[str, Any]:
        campaign = self.campaign.document()
        return {
            "lost": campaign.pop("lost"),
            "duplicates": campaign.pop("duplicates"),
            "audit_ok": self.audit_ok,
            **campaign,
            "contacts": self.trial.contacts,
            "seed": self.trial.seed,
            "seconds": round(self.seconds, 1),
            **({f"replay_{name}": value for name, value in self.replay.document().items()} if self.replay else {}),
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
            killer = Killer(installation, await installation.temporal())
            return await _Course(trial, installation, api, killer, say, began).run()


class _Course:
    def __init__(self, trial: Trial, installation: Installation, api: Api, killer: Killer, say: Say, began: float) -> None:
        self.trial = trial
        self.installation = installation
        self.api = api
        self.killer = killer
        self.say = say
        self.began = began
        self.fire = Fire(installation, killer, trial.kills, say)
        self.invited = addresses("invited", trial.contacts)
        self.uninvited = addresses("uninvited", max(1, trial.contacts // 20))
        self.topic_id = ""
        self.connection_id = ""
        self.campaign_id = ""
        self.replaying: Replaying | None = None

    async def run(self) -> Report:
        made, trouble = await self._prepare(), None
        try:
            await self._campaign(made)
            if self.trial.replay_kills:
                await self._replay()
        except (NotRecovered, TooSlow) as error:
            trouble = str(error)
        return Report(
            self.trial,
            campaign=await self._judge_campaign(made),
            replay=await self._judge_replay(made),
            audit_ok=await verify_audit(self.installation),
            seconds=time.monotonic() - self.began,
            trouble=trouble,
        )

    async def _prepare(self) -> Made:
        self.topic_id = await make_topic(self.api, "chaos")
        await import_contacts(self.api, self.invited, "chaos")
        await import_contacts(self.api, self.uninvited, None)
        self.connection_id = await make_connection(self.api, self.installation, "Chaos", rate_per_second=self.trial.rate)
        return await publish_journey(self.api, "Chaos", self.topic_id, self.connection_id, SENDS, WAIT)

    async def _campaign(self, made: Made) -> None:
        self.campaign_id = await launch(self.api, "Chaos", made.journey_id, self.trial.page_size)
        self.say(f"campaign of {SENDS * self.trial.contacts} messages launched, {self.trial.rate:.1f} per second")
        for planned in plan_kills(self.trial.seed, self.trial.kills):
            await self.fire.kill(planned)
            self.fire.under_way += not at_rest(await self.api.get(f"/v1/campaigns/{self.campaign_id}"))
        self.say("all kills done; waiting until every run is finished or waits for a person")
        await self.api.patch(f"/v1/connections/{self.connection_id}", {"rate_per_second": None})
        await until_at_rest(self.api, self.campaign_id, RESTS_WITHIN)

    async def _replay(self) -> None:
        everyone = [*self.invited, *self.uninvited]
        rate, page_size = self.trial.replay_rate, self.trial.page_size
        setting = Setting(self.topic_id, self.connection_id, everyone, self.trial.contacts, rate, page_size)
        self.replaying = Replaying(self.api, setting, Fire(self.installation, self.killer, self.trial.replay_kills, self.say))
        self.say("second campaign: its second message fails for everyone")
        await self.replaying.prepare()
        self.say(f"the fault is lifted; bulk replay of {self.trial.contacts} runs, {rate:.1f} messages per second")
        await self.replaying.carry_out(plan_replay_kills(self.trial.seed, self.trial.replay_kills))

    async def _judge_campaign(self, made: Made) -> Phase:
        outcome = await read_outcome(self.installation, self.campaign_id, self.replaying.made.subjects.values() if self.replaying else ())
        return await self._judge(made, outcome, self.fire, self.campaign_id)

    async def _judge_replay(self, made: Made) -> ReplayPhase | None:
        """By the ends of the chains; a message that failed and was sent by a replay is one message."""
        replaying = self.replaying
        if replaying is None or not replaying.campaign_id:
            return None
        outcome = await read_outcome(self.installation, replaying.campaign_id, made.subjects.values())
        links = await read_links(self.installation, replaying.campaign_id)
        by_ends = Outcome(ends(links), outcome.deliveries, outcome.received)
        phase = await self._judge(replaying.made, by_ends, replaying.fire, replaying.campaign_id)
        replayed = sum(link.replayed_by is not None for link in links)
        return ReplayPhase(phase, judge_replays(links, outcome.deliveries, replaying.operations), replaying.operations, replayed)

    async def _judge(self, made: Made, outcome: Outcome, fire: Fire, campaign_id: str) -> Phase:
        verdict = judge(Expected(frozenset(self.invited), made.subjects), outcome, fire.kills, REACH)
        conserved = (await self.api.get(f"/v1/campaigns/{campaign_id}"))["progress"]["conservation"]["holds"] is True
        return Phase(verdict, fire.kills, fire.under_way, conserved)


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
