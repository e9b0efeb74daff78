"""The reconciler: rows beside workflows.

A round lists the workflows that run (one call for a thousand), walks each organization's rows from workflow to workflow, and describes
only workflows with which something may be wrong: a bounded number in each round, those with an open finding first. What is found wrong
is looked at once more in the transaction that writes it down: visibility lags, and workflows close while one looks.
"""

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.contracts.journey import JOURNEY_WORKFLOW
from activities.contracts.payload import Scope
from activities.contracts.reconciling import Reconcile, Reconciled
from activities.heartbeat import heartbeating
from activities.jobs import JOB_WORKFLOWS, unfinished_jobs
from activities.observed import GOES_ON, Examined, Listed, Observer, organization_of
from activities.per_organization import in_each_organization
from activities.reconciler_rules import (
    TOO_EARLY,
    Around,
    Diagnosis,
    Patience,
    campaign_failed,
    in_trouble,
    job_failing,
    of_rows,
    schedule_stopped,
    without_row,
)
from activities.signals import ignoring_absence
from activities.starting import start_campaign
from activities.telling_untold import UntoldTelling
from models.domain.findings import Kind, Sighting
from models.domain.journey import workflow_id
from models.domain.schedule import read_timing
from models.store import campaigns, carriers, conservation, findings, occurrences
from models.store.carriers import Carried, Late
from models.store.session import Database, OrganizationSession
from models.tables.base import utc_now

log = logging.getLogger(__name__)

EXAMINED_AT_MOST = 200  # workflows of an organization in one round, for each of the two questions; the others in the next rounds
GONE = (Kind.WORKFLOW_CLOSED, Kind.ROW_WITHOUT_WORKFLOW)
LOOKED_FOR = (
    Kind.OVERDUE_WAKE,
    Kind.WORKFLOW_TASK_FAILING,
    Kind.ACTIVITY_FAILING,
    Kind.WORKFLOW_WITHOUT_ROW,
    Kind.SCHEDULE_STOPPED,
    Kind.OPERATION_FAILING,
    Kind.PUBLISH_PLAN_FAILING,
    Kind.BRAKING_FAILING,
    *GONE,
)


@dataclass(frozen=True, slots=True)
class Running:
    """What is kept of a workflow that runs. A round holds all of them, so no more than it needs."""

    journey_id: UUID | None
    started_at: datetime | None


@dataclass
class Landscape:
    """The workflows of one organization that run, as visibility lists them, by id."""

    journeys: dict[str, Running] = field(default_factory=dict)
    others: dict[str, Running] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    failed: defaultdict[str, list[Listed]] = field(default_factory=lambda: defaultdict(list))  # jobs', of late
    schedules: dict[str, bool] = field(default_factory=dict)  # whether each is paused
    journey_ids: dict[UUID | None, UUID | None] = field(default_factory=dict)  # each once, however many workflows bear it

    def add(self, listed: Listed) -> None:
        running = Running(self.journey_ids.setdefault(listed.journey_id, listed.journey_id), listed.started_at)
        (self.journeys if listed.workflow_type == JOURNEY_WORKFLOW else self.others)[listed.workflow_id] = running


@dataclass
class Suspects:
    """What the rows say, and which workflows have to be looked at because of it."""

    carrying: set[str]
    late: dict[str, Late]
    rows: dict[str, Carried]  # of workflows that do not seem to run
    unknown: set[str]  # workflows that run and carry no unfinished row
    open: dict[str, set[Kind]]

    @property
    def settled(self) -> set[str]:
        """Their workflows are gone, and all their runs marked: there is nothing new to find out."""
        return {name for name, rows in self.rows.items() if rows.unlost == 0}


@dataclass
class Found:
    sightings: list[Sighting] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    keep: set[str] = field(default_factory=set)  # not looked at, or too early to say
    without_row: list[str] = field(default_factory=list)


class ReconcilingActivities:
    def __init__(self, database: Database, temporal: Client, task_queue: str, patience: Patience | None = None) -> None:
        self.database = database
        self.temporal = temporal
        self.task_queue = task_queue
        self.patience = patience or Patience()

    def methods(self) -> list[Callable[..., Any]]:
        return [self.compare_workflows]

    @activity.defn(name="compare_workflows")
    async def compare_workflows(self, reconcile: Reconcile) -> Reconciled:
        """Findings say what is wrong between rows and workflows; runs whose workflow is gone for good need attention. A campaign whose own
        workflow is gone has it again, and who has not heard an operator's word is told.

        Safe to run twice: a finding is open once, and a run that is marked is not marked again.

        Raises:
            ApplicationError: some organization could not be looked at; to be repeated.
        """
        async with heartbeating():
            observer = Observer(self.temporal, self.patience.polled)
            await UntoldTelling(self.database, self.temporal, self.patience).tell(observer)  # first: what is listed is as it is then
            landscapes = await _landscapes(observer, utc_now() - self.patience.failures_within)

            async def compare(organization_id: UUID) -> Reconciled:
                return await self._compare(organization_id, landscapes.pop(organization_id, Landscape()), observer)

            return await in_each_organization(self.database, "workflows", compare)

    async def _compare(self, organization_id: UUID, running: Landscape, observer: Observer) -> Reconciled:
        await self._make_occurrences(organization_id)
        failed = await self._restart_campaigns(organization_id, running, observer)  # first: their pages may be missing only because of that
        async with self.database.organization(organization_id) as session:
            suspects = await self._suspects(session, running)
        found = await self._look(organization_id, running, suspects, observer)
        found.sightings += failed
        await self._restore_schedules(organization_id, running.schedules, observer, found)
        await self._judge_jobs(organization_id, running.failed, observer, found)
        async with self.database.organization(organization_id) as session:
            return await self._write(session, suspects, found)

    async def _make_occurrences(self, organization_id: UUID) -> None:
        """Of recurring campaigns those exist that should by now, whatever became of the workflow that was to make them; those that are
        late for good are on record. Their workflows are started as those of all campaigns are that are without."""
        now = utc_now()
        begun_by = now - self.patience.unstarted
        async with self.database.organization(organization_id) as session:
            under_way = await occurrences.recurrent(session, now)
        suspects = await asyncio.to_thread(lambda: [one.id for one in under_way if one.unmade(begun_by, now)])
        for campaign_id in suspects:
            async with self.database.organization(organization_id) as session:
                if made := await occurrences.make_unmade(session, campaign_id, begun_by, now):
                    log.warning("reconciler: %d occurrences of campaign %s had not been made, and are", len(made), campaign_id)

    async def _restart_campaigns(self, organization_id: UUID, running: Landscape, observer: Observer) -> list[Sighting]:
        """Those that are not over, and whose workflow was closed in another way than completed. What failed may fail again and again, for a
        reason that lasts: that is seen."""
        failed = []
        async with self.database.organization(organization_id) as session:
            unfinished = {workflow_id.campaign(organization_id, one.id): one for one in await campaigns.unfinished(session)}
        for name in _chosen(unfinished.keys() - running.others.keys(), ()):
            one = unfinished[name]
            seen = await observer.examine(name)
            if seen.status == "failed":
                failed.append(campaign_failed(name, one.id, one.journey_id, seen))
            scope = Scope(organization_id=organization_id, journey_id=one.journey_id, version_id=one.version_id, campaign_id=one.id)
            if await start_campaign(self.temporal, self.task_queue, scope, scheduled=read_timing(one.schedule).waits):
                log.warning("reconciler: campaign %s was without its workflow, which begins anew", one.id)
        return failed

    async def _restore_schedules(self, organization_id: UUID, listed: Mapping[str, bool], observer: Observer, found: Found) -> None:
        """Of recurring campaigns: one that is paused goes on, for what it opens is paused with the campaign; one that is missing is made by
        upkeep. Temporal forgets by itself those that are at their end."""
        now = utc_now()
        async with self.database.organization(organization_id) as session:
            under_way = await campaigns.recurring(session, now - self.patience.unstarted)
        names = {workflow_id.campaign(organization_id, one.id): one for one in under_way}
        suspects = {name: one for name, one in names.items() if listed.get(name, True) and not one.has_ended(now)}
        chosen = _chosen(suspects, ())
        found.keep |= {str(suspects[name].id) for name in suspects.keys() - set(chosen)}
        for name in chosen:
            one, paused = suspects[name], await observer.schedule_is_paused(name)
            if paused is False:
                continue  # the list was behind
            if paused:
                with ignoring_absence():
                    await self.temporal.get_schedule_handle(name).unpause(note="pause the campaign, not its schedule")
            else:
                async with self.database.organization(organization_id) as session:
                    if not await campaigns.unplan(session, one.id):
                        continue  # its cancellation deleted it
            log.warning("reconciler: the schedule of campaign %s was %s", one.id, "paused" if paused else "missing")
            found.sightings.append(schedule_stopped(name, one.id, one.journey_id, "paused" if paused else "deleted"))

    async def _judge_jobs(self, organization_id: UUID, failed: Mapping[str, Sequence[Listed]], observer: Observer, found: Found) -> None:
        """Those that are not over and whose workflows have failed again and again: upkeep begins them anew each minute."""
        often = {name: times for name, times in failed.items() if len(times) >= self.patience.failures}
        if not often:
            return
        async with self.database.organization(organization_id) as session:
            jobs = await unfinished_jobs(session, often)
        chosen = _chosen(jobs, ())
        found.keep |= {str(jobs[name].id) for name in jobs.keys() - set(chosen)}
        for name in chosen:
            times = sorted(often[name], key=lambda one: one.closed_at or utc_now())
            found.sightings.append(job_failing(jobs[name], times, *await observer.why_failed(times[-1])))

    async def _suspects(self, session: OrganizationSession, running: Landscape) -> Suspects:
        carrying = await carriers.carrying(session)
        return Suspects(
            carrying=carrying,
            late=await carriers.late(session, self.patience.late),
            rows=await carriers.carried(session, carrying - set(running.journeys)),
            unknown={name for name, listed in running.journeys.items() if name not in carrying and self._has_begun(listed)},
            open=await findings.open_subjects(session, LOOKED_FOR),
        )

    def _has_begun(self, running: Running) -> bool:
        return running.started_at is None or abs(utc_now() - running.started_at) > self.patience.unstarted

    # --- looking, in no transaction ----------------------------------------------------------------------------------

    async def _look(self, organization_id: UUID, running: Landscape, suspects: Suspects, observer: Observer) -> Found:
        found = Found()
        gone = set(suspects.rows) - suspects.settled
        going = (set(suspects.late) & set(running.journeys)) | running.failing | set(running.others)
        going |= {name for name in suspects.open if name in running.journeys}
        chosen_gone, chosen_going = _chosen(gone | suspects.unknown, suspects.open), _chosen(going, suspects.open)
        found.keep = (gone | suspects.unknown | going) - set(chosen_gone) - set(chosen_going)
        examined = await observer.examine_all({*chosen_gone, *chosen_going})
        for name in chosen_gone:
            if name in suspects.unknown:
                self._judge_unknown(name, examined[name], running, found)
            else:
                await self._judge_rows(organization_id, suspects.rows[name], examined[name], observer, found)
        for name in chosen_going:
            await self._judge_going(name, examined[name], running, suspects.late.get(name), observer, found)
        return found

    async def _judge_rows(self, organization_id: UUID, rows: Carried, seen: Examined, observer: Observer, found: Found) -> None:
        """Asked now, and not read from the list: that may be minutes old. Whoever is to start the workflow may have done so between one
        look and the other, and be gone: so before anybody is given up it is looked for once more."""
        diagnosis = of_rows(rows, seen, await self._around(organization_id, rows, observer), utc_now(), self.patience)
        if diagnosis.lost and (await observer.examine(rows.workflow_id)).status in GOES_ON:
            diagnosis = TOO_EARLY
        self._take(rows.workflow_id, diagnosis, found)

    async def _around(self, organization_id: UUID, rows: Carried, observer: Observer) -> Around:
        campaign = None if rows.campaign_id is None else await observer.examine(workflow_id.campaign(organization_id, rows.campaign_id))
        before = None if rows.before is None else await observer.examine(rows.before)
        return Around(
            campaign_runs=campaign is not None and campaign.status in GOES_ON,
            handing_over=before is not None and any(each.name == "hand_over_runs" for each in before.activities),
        )

    def _take(self, name: str, diagnosis: Diagnosis, found: Found) -> None:
        if diagnosis.sighting is not None:
            found.sightings.append(diagnosis.sighting)
        if diagnosis.lost:
            found.lost.append(name)
        if diagnosis.early:
            found.keep.add(name)

    def _judge_unknown(self, name: str, seen: Examined, running: Landscape, found: Found) -> None:
        if without_row(name, seen, 0, running.journeys[name].journey_id) is not None:
            found.without_row.append(name)

    async def _judge_going(
        self, name: str, seen: Examined, running: Landscape, late: Late | None, observer: Observer, found: Found
    ) -> None:
        sighting = await in_trouble(name, seen, late, observer.is_polled, utc_now(), self.patience)
        if sighting is None:
            return
        if sighting.kind is Kind.WORKFLOW_TASK_FAILING:
            why, failure = await observer.why_tasks_fail(name)
            sighting = replace(sighting, details={**sighting.details, "why": why, "failure": failure})
        listed = running.journeys.get(name) or running.others.get(name)
        found.sightings.append(replace(sighting, journey_id=sighting.journey_id or (listed.journey_id if listed else None)))

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, session: OrganizationSession, suspects: Suspects, found: Found) -> Reconciled:
        """What was seen, unless the rows have changed since: `lose` leaves rows alone that somebody works on, and a workflow whose rows
        have come or ended meanwhile is in no trouble."""
        sightings = await self._still_so(session, suspects, found)
        lost = await carriers.lose(session, found.lost, self.patience.grace, utc_now())
        await findings.touch(session, GONE, suspects.settled)
        await conservation.note(session, "workflows")
        recorded = await findings.record(session, sightings, LOOKED_FOR, found.keep | suspects.settled)
        return Reconciled(opened=recorded.opened, resolved=recorded.resolved, lost=lost)

    async def _still_so(self, session: OrganizationSession, suspects: Suspects, found: Found) -> list[Sighting]:
        now = await carriers.carried(session, {one.subject_id for one in found.sightings if one.subject_id in suspects.carrying})
        rowless = set(found.without_row) - set(await carriers.carried(session, found.without_row))
        known = await carriers.known(session, rowless)
        late = await carriers.late(session, self.patience.late) if any(one.kind is Kind.OVERDUE_WAKE for one in found.sightings) else {}
        kept = []
        for one in found.sightings:
            rows = now.get(one.subject_id)
            if one.subject_id in suspects.carrying and rows is None:
                continue  # finished, or moved to another workflow
            if one.kind is Kind.OVERDUE_WAKE and one.subject_id not in late:
                continue
            kept.append(
                replace(one, runs=one.runs or (rows.runs if rows else 0), journey_id=one.journey_id or (rows.journey_id if rows else None))
            )
        kept += [
            Sighting(Kind.WORKFLOW_WITHOUT_ROW, "workflow", name, {"finished": name in known, "rows": known.get(name, 0)})
            for name in sorted(rowless)
        ]
        return kept


async def _landscapes(observer: Observer, failed_since: datetime) -> dict[UUID, Landscape]:
    """What runs, by organization, and which jobs have failed: with what belongs to none nobody's rows are compared."""
    found: defaultdict[UUID, Landscape] = defaultdict(Landscape)
    async for page in observer.running():
        for listed in page:
            if listed.organization_id is not None:
                found[listed.organization_id].add(listed)
    for listed in await observer.failing():
        if listed.organization_id is None:
            log.error("reconciler: the tasks of workflow %s fail", listed.workflow_id)
        else:
            found[listed.organization_id].failing.add(listed.workflow_id)
    async for page in observer.failed(JOB_WORKFLOWS, failed_since):
        for listed in page:
            if listed.organization_id is not None:
                found[listed.organization_id].failed[listed.workflow_id].append(listed)
    for name, paused in (await observer.schedules()).items():
        if (organization_id := organization_of(name)) is not None:
            found[organization_id].schedules[name] = paused
    return found


def _chosen(names: Collection[str], open_subjects: Collection[str]) -> list[str]:
    """Those that are looked at in this round: with an open finding first, the others in an order that changes every minute."""
    minute = str(int(utc_now().timestamp()) // 60)

    def order(name: str) -> tuple[bool, str]:
        return name not in open_subjects, hashlib.sha256(f"{minute}/{name}".encode()).hexdigest()

    return sorted(names, key=order)[:EXAMINED_AT_MOST]
