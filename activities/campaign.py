"""Campaigns: the audience's snapshot, the workflows of its pages, and its end."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.contracts.campaign import (
    AudiencePages,
    CampaignPlan,
    CampaignProgress,
    CampaignRef,
    Dawn,
    Occurrences,
    PageRange,
)
from activities.contracts.journey import JourneyInput
from activities.contracts.payload import Scope
from activities.heartbeat import heartbeating
from activities.missed_words import Known, tell_exits, tell_later, tell_missed_words
from activities.starting import start_campaign, start_journey
from activities.versions import Versions
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.run import RunState
from models.settings import Settings
from models.store import audience, handovers, occurrences, outside_rules, snapshots, waits
from models.store.audience import Flags, PagedRun
from models.store.session import Database, OrganizationSession
from models.tables.base import utc_now

STARTS_AT_ONCE = 8


@dataclass(frozen=True)
class _Pages:
    """What the workflows of some pages start with."""

    definition: Definition
    runs: Sequence[PagedRun]
    leaving: Mapping[UUID, str]
    flags: Flags

    def state(self, run: PagedRun) -> RunState:
        return RunState(
            run_id=run.id,
            contact_id=run.contact_id,
            step_id=self.definition.start,
            starts_at=run.starts_at,
            leaving=self.leaving.get(run.id),
        )


class CampaignActivities:
    def __init__(self, database: Database, settings: Settings, versions: Versions, temporal: Client) -> None:
        self.database = database
        self.versions = versions
        self.temporal = temporal
        self.task_queue = settings.task_queue

    def methods(self) -> list[Callable[..., Any]]:
        return [
            self.plan_campaign,
            self.snapshot_audience,
            self.start_pages,
            self.finish_campaign,
            self.make_occurrences,
            self.start_occurrences,
        ]

    @activity.defn(name="plan_campaign")
    async def plan_campaign(self, campaign: CampaignRef) -> CampaignPlan:
        """When to look again whether the campaign starts. Safe to run twice: it only notes that the campaign's workflow is there."""
        async with heartbeating(), self.database.organization(campaign.organization_id) as session:
            return CampaignPlan(look_at=await snapshots.next_look(session, campaign.campaign_id, campaign.now or utc_now()))

    @activity.defn(name="snapshot_audience")
    async def snapshot_audience(self, campaign: CampaignRef) -> AudiencePages:
        """The campaign's runs exist, one per selected contact, divided into pages.

        Safe to run twice: one transaction, and a campaign whose audience is taken keeps it.
        """
        async with heartbeating(), self.database.organization(campaign.organization_id) as session:
            taken = await snapshots.snapshot(session, campaign.campaign_id, campaign.now)
        scope = Scope(
            organization_id=campaign.organization_id,
            journey_id=taken.journey_id,
            version_id=taken.version_id,
            campaign_id=campaign.campaign_id,
            on_error=taken.on_error,
        )
        return AudiencePages(scope=scope, runs=taken.runs, pages=taken.pages)

    @activity.defn(name="start_pages")
    async def start_pages(self, pages: PageRange) -> None:
        """The JourneyWorkflow of each page is running (or has run).

        Safe to run twice: a workflow id is made from the page's number and never used again, and a page that has begun is not started,
        however short Temporal's memory of ids: the campaign's workflow may begin anew. What operators say while pages are starting, too
        late for the workflow's input and too early for its signal, is signalled here; so is who leaves by a rule, where an earlier attempt
        started the workflow, and may have known less.
        """
        async with heartbeating():
            found = await self._read(pages)
            by_page: defaultdict[int, list[PagedRun]] = defaultdict(list)
            for run in found.runs:
                by_page[run.page].append(run)
            limit = asyncio.Semaphore(STARTS_AT_ONCE)
            starts = (self._start(pages.scope, page, by_page[page], found, limit) for page in by_page)
            started = await asyncio.gather(*starts)
            known = {name: Known(pages.scope, found.flags if new else None) for name, new in started}
            refused = await tell_missed_words(self.temporal, self.database, pages.scope.organization_id, known)
            await tell_later(self.database, pages.scope.organization_id, refused)

    async def _read(self, pages: PageRange) -> "_Pages":
        campaign_id = _campaign_id(pages.scope)
        async with self.database.organization(pages.scope.organization_id) as session:
            definition = await self.versions.definition(session, pages.scope.version_id)
            runs = await audience.page_runs(session, campaign_id, pages.first, pages.end)
            leaving = await self._leaving(session, definition, [run.id for run in runs])
            return _Pages(definition, runs, leaving, await audience.flags(session, campaign_id))

    async def _leaving(self, session: OrganizationSession, definition: Definition, run_ids: Sequence[UUID]) -> Mapping[UUID, str]:
        """Whom an exit rule or goal ends before anything is sent to them, with the reason. A journey without such rules pays nothing."""
        if not definition.exits and not definition.goals:
            return {}
        await waits.routing_lock(session, alone=False)
        await outside_rules.begin(session, self.versions.definition, run_ids, utc_now())
        return await handovers.exits(session, run_ids)

    async def _start(
        self, scope: Scope, page: int, runs: Sequence[PagedRun], found: "_Pages", limit: asyncio.Semaphore
    ) -> tuple[str, bool]:
        """The page's workflow id, and whether it was started just now."""
        name = workflow_id.campaign_page(scope.organization_id, _campaign_id(scope), page)
        given = JourneyInput(
            scope=scope,
            definition=found.definition,
            runs=[found.state(run) for run in runs],
            held_by=sorted(found.flags.held_by),
            cancelled=found.flags.cancelled,
        )
        begun = any(run.begun for run in runs)
        async with limit:
            new = not begun and await start_journey(self.temporal, self.task_queue, name, given)
            if not new and found.leaving:
                leaving = [run.id for run in runs if run.id in found.leaving]
                await tell_exits(self.temporal, self.database, scope.organization_id, name, leaving)
        return name, new

    @activity.defn(name="finish_campaign")
    async def finish_campaign(self, campaign: CampaignRef) -> CampaignProgress:
        """The campaign is marked completed when no run of it is unfinished. Safe to run twice: it is marked once."""
        async with heartbeating(), self.database.organization(campaign.organization_id) as session:
            return CampaignProgress(finished=await audience.finish(session, campaign.campaign_id, campaign.now))

    @activity.defn(name="make_occurrences")
    async def make_occurrences(self, dawn: Dawn) -> Occurrences:
        """Each of the day's occurrences is a campaign of its own, unless it is to be left out.

        Safe to run twice: (recurring campaign, nominal time) is unique, and the campaigns that are there already are answered.
        """
        async with heartbeating(), self.database.organization(dawn.organization_id) as session:
            made = await occurrences.make(session, dawn.campaign_id, dawn.scheduled_at, dawn.now)
        organization_id = dawn.organization_id
        return Occurrences(
            scopes=[
                Scope(organization_id=organization_id, journey_id=one.journey_id, version_id=one.version_id, campaign_id=one.id)
                for one in made
            ]
        )

    @activity.defn(name="start_occurrences")
    async def start_occurrences(self, made: Occurrences) -> None:
        """The CampaignWorkflow of each occurrence's campaign is running (or has completed). Safe to run twice: one that runs is not
        started again."""
        async with heartbeating():
            for scope in made.scopes:
                await start_campaign(self.temporal, self.task_queue, scope, scheduled=True)


def _campaign_id(scope: Scope) -> UUID:
    assert scope.campaign_id is not None  # pages belong to a campaign
    return scope.campaign_id
