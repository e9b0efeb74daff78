"""What the demo's campaign did, read over the API when it has ended, and whether that is right."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.demo.api import PublicApi
from deploy.demo.oracle import Comparison, Mail, Refusal, compare, expect
from deploy.demo.people import Person
from deploy.demo.scene import Scene
from models.checkpoints import is_signed
from models.domain.audit_verification import Verification, verify

READERS = 12  # timelines read at the same time
Timeline = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """`refused` counts messages by reason, as the campaign reports them and as the timelines tell."""

    contacts: int
    comparison: Comparison
    refused: Mapping[str, int]
    refused_by_timeline: Mapping[str, int]
    runs: Mapping[str, int]
    audience: int | None
    audit: Verification
    travellers: int  # different people with a run
    example: Sequence[str]  # one run's timeline, in sentences

    @property
    def conserved(self) -> bool:
        """Everybody who entered is somewhere, and each of them once."""
        return self.audience == sum(self.runs.values()) == self.contacts == self.travellers

    @property
    def all_completed(self) -> bool:
        return self.runs.get("completed", 0) == self.contacts

    @property
    def holds(self) -> bool:
        reasons_agree = dict(self.refused) == dict(self.refused_by_timeline)
        return self.comparison.holds and reasons_agree and self.conserved and self.all_completed and self.audit.ok


async def read_outcome(api: PublicApi, people: Sequence[Person], scene: Scene) -> Outcome:
    """Inbox, runs, timelines and audit record, against the file."""
    campaign = await api.get(f"/v1/campaigns/{scene.campaign_id}")
    runs = [run async for run in api.every("/v1/runs", campaign_id=scene.campaign_id)]
    inbox = [Mail(message["recipient"].lower(), message["subject"]) async for message in api.every("/v1/sandbox/messages")]
    timelines = await _timelines(api, runs)
    refused = list(_refusals(timelines, scene))
    audit = await _audit(api)
    return Outcome(
        contacts=len(people),
        comparison=compare(expect(people), inbox, refused),
        refused=campaign["progress"]["refusals"],
        refused_by_timeline=Counter(refusal.reason for refusal in refused),
        runs=Counter(run["status"] for run in runs),
        audience=campaign["audience"],
        audit=audit,
        travellers=len({run["contact_id"] for run in runs} & set(scene.external_ids)),
        example=_example(timelines),
    )


async def _timelines(api: PublicApi, runs: Sequence[Mapping[str, Any]]) -> list[Timeline]:
    turn = asyncio.Semaphore(READERS)

    async def read(run: Mapping[str, Any]) -> Timeline:
        async with turn:
            timeline: Timeline = await api.get(f"/v1/runs/{run['id']}/timeline")
            return timeline

    return await asyncio.gather(*(read(run) for run in runs))


def _refusals(timelines: Sequence[Timeline], scene: Scene) -> Iterator[Refusal]:
    """Every message that was not sent, with the reason that the run's timeline gives."""
    for timeline in timelines:
        who = scene.external_ids[timeline["run"]["contact_id"]]
        yield from (Refusal(who, entry["step_id"], entry["reason"]) for entry in timeline["entries"] if entry["kind"] == "not_sent")


def _example(timelines: Sequence[Timeline]) -> list[str]:
    """Somebody who got one thing and not another, if there is such a person."""

    def interest(timeline: Timeline) -> int:
        reasons = {entry["reason"] for entry in timeline["entries"] if entry["kind"] == "not_sent"}
        return len(reasons) * any(entry["kind"] == "sent" for entry in timeline["entries"])

    chosen = max(timelines, key=interest, default={"entries": ()})
    return [f"{entry['at'][11:19]}  {entry['sentence']}" for entry in chosen["entries"]]


async def _audit(api: PublicApi) -> Verification:
    """The exported record, verified as an auditor would, with the signer's key asked for separately."""
    checkpoint = await api.get("/v1/audit-entries/checkpoint")
    return verify(await api.lines("/v1/audit-entries/export"), is_signed, bytes.fromhex(checkpoint["public_key"]))
