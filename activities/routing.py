"""Routing: what has happened to contacts, brought to the journeys and runs that it concerns."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.contracts.routing import Routed, Routing
from activities.entering import Entering
from activities.heartbeat import heartbeating
from activities.outbox_delivery import OutboxDelivery
from activities.versions import Versions
from activities.waits import match_details
from models.domain.audit import NewEntry
from models.domain.journey.definition import Definition, WaitForStep, WaitStep
from models.domain.journey.entry import EventTrigger
from models.settings import Settings
from models.store import audit, changes, entries, events, membership, outbox, outside_rules, waits, watched
from models.store.events import Unrouted
from models.store.outbox import OutboxMessage
from models.store.outside_rules import Occasion
from models.store.session import Database, OrganizationSession
from models.store.waits import Match, OpenWaits
from models.tables.base import utc_now
from models.tables.events import JourneyTrigger

EVENTS_AT_ONCE = 500
CHANGES_AT_ONCE = 2_000
MESSAGES_AT_ONCE = 2_000
PAGES_AT_ONCE = 5  # of messages, where some cannot be told yet


class RoutingActivities:
    def __init__(self, database: Database, settings: Settings, versions: Versions, temporal: Client) -> None:
        self.database = database
        self.versions = versions
        self.page_size = settings.page_size
        self.delivery = OutboxDelivery(database, versions, temporal, settings.task_queue)

    def methods(self) -> list[Callable[..., Any]]:
        return [self.route_events]

    @activity.defn(name="route_events")
    async def route_events(self, routing: Routing) -> Routed:
        """Safe to run twice: one transaction marks the events as routed and writes what is to be told; a workflow id starts once, and a
        message that is heard again changes nothing. What a lost worker had not told yet still stands in the outbox."""
        async with heartbeating():
            more = await self._route(routing)
            told = await self._tell(routing.organization_id)
        return Routed(more=more or told.more, stuck=told.stuck)

    async def _route(self, routing: Routing) -> bool:
        """Events in the order of their acceptance, of each contact one at a time: entries, then exits and goals, then waits. Whether
        there was more than one call takes."""
        async with self.database.organization(routing.organization_id) as session:
            await waits.routing_lock(session, alone=True)
            found = await events.unrouted(session, EVENTS_AT_ONCE)
            changed = await changes.take(session, CHANGES_AT_ONCE)
            round_ = _Round(session, self.versions, self.page_size, utc_now())
            for batch in _one_per_contact(found):
                await round_.happened(batch)
                await events.routed(session, [event.id for event in batch])
            contacts = sorted({event.contact_id for event in found} | set(changed))
            if routing.timed:
                await round_.look_again(None)
            if contacts:
                await round_.look_again(contacts)
            if changed:
                await round_.reconsider(changed)
            more = await round_.enter()
            await round_.conclude()
        return more or len(found) == EVENTS_AT_ONCE or len(changed) == CHANGES_AT_ONCE

    async def _tell(self, organization_id: UUID) -> Routed:
        """The oldest words, and where some of them cannot be told yet (a campaign's pages are being started), also those behind them. What
        else is for a workflow that could not be told is left, and takes no place on the further pages."""
        after: UUID | None = None
        untold: set[str] = set()
        told_any = stuck = False
        for _ in range(PAGES_AT_ONCE):
            async with self.database.organization(organization_id) as session:
                waiting = await outbox.pending(session, MESSAGES_AT_ONCE, after, untold)
            told = await self.delivery.tell(organization_id, waiting)
            if told:
                async with self.database.organization(organization_id) as session:
                    await outbox.delivered(session, told)
            told_any, stuck = told_any or bool(told), stuck or len(told) < len(waiting)
            if len(waiting) < MESSAGES_AT_ONCE:
                return Routed(stuck=stuck)
            if len(told) == len(waiting):
                break
            after = waiting[-1].id
            known = set(told)
            untold |= {message.workflow_id for message in waiting if message.id not in known}
        return Routed(more=told_any, stuck=stuck)


def _time_waits(definition: Definition) -> dict[str, bool]:
    """The steps that wait for a time, and whether that depends on the contact."""
    return {step_id: step.planned for step_id, step in definition.steps.items() if isinstance(step, WaitStep)}


def _one_per_contact(found: Sequence[Unrouted]) -> list[list[Unrouted]]:
    """The events in rounds: the first of every contact, the second of every contact, … each round in the order of acceptance."""
    rounds: list[list[Unrouted]] = []
    seen: defaultdict[UUID, int] = defaultdict(int)
    for event in found:
        number = seen[event.contact_id]
        seen[event.contact_id] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(event)
    return rounds


class _Round:
    """One transaction of routing. Set-based: a constant number of statements per trigger and step concerned."""

    def __init__(self, session: OrganizationSession, versions: Versions, page_size: int, now: datetime) -> None:
        self.session = session
        self.versions = versions
        self.now = now
        self.entering = Entering(session, versions, page_size, now)
        self.told: list[OutboxMessage] = []
        self.entries: list[NewEntry] = []

    async def happened(self, batch: Sequence[Unrouted]) -> None:
        """Each of these events (of different contacts) has had its consequences."""
        ids, names = [event.id for event in batch], sorted({event.name for event in batch})
        await self._propose(ids, names)
        await self.enter()
        occasion = Occasion(events=ids)
        for kind in ("exit", "goal"):
            for trigger in await outside_rules.in_force(self.session, kind, names):
                await self._act(trigger, occasion)
        for version_id, step_id in await watched.steps_awaiting(self.session, ids):
            definition = await self.versions.definition(self.session, version_id)
            these = OpenWaits(version_id, step_id, "e.id = ANY(CAST(:events AS uuid[]))", {"events": ids})
            self._tell(await waits.match_events(self.session, these, definition.step(step_id, WaitForStep), self.now))

    async def look_again(self, contacts: Sequence[UUID] | None) -> None:
        """Whatever depends on how these contacts are now (None: all, for what time alone may have changed) has been looked at."""
        occasion = Occasion(contacts=contacts)
        for trigger in await outside_rules.in_force(self.session, "entry", None):
            if contacts is not None or trigger.timed or trigger.baselined_at is None:
                await membership.compare(self.session, trigger, self.now, contacts)
        for kind in ("exit", "goal"):
            for trigger in await outside_rules.in_force(self.session, kind, None):
                if contacts is not None or trigger.timed:
                    await self._act(trigger, occasion)
        await self._conditions(contacts)

    async def reconsider(self, contacts: Sequence[UUID]) -> None:
        """Runs of these contacts, which have changed, ask again when their wait ends, if that is by the contact's clock or dates. Whoever
        may stand at such a wait is told: the row of a run says where it was a moment ago, and the end of its wait may be under way."""
        under_way = await watched.versions_under_way(self.session, contacts)
        waits_of = {version_id: _time_waits(await self.versions.definition(self.session, version_id)) for version_id in under_way}
        planning = [version_id for version_id, found in waits_of.items() if any(found.values())]
        asleep = [(version_id, step_id) for version_id in planning for step_id, planned in waits_of[version_id].items() if not planned]
        runs = await watched.runs_under_way(self.session, contacts, planning, asleep) if planning else []
        self.told += [OutboxMessage(run_id, "reconsider") for run_id in runs]

    async def enter(self) -> bool:
        """Everybody who is to enter has been judged, and what has happened since they were to enter counts, and what is so already: whom a
        rule ends leaves before anything is sent. Whether somebody is left for later."""
        more = await self.entering.decide()
        entered = self.entering.entered
        self.told += self.entering.told
        self.entries += self.entering.entries
        self.entering.told, self.entering.entries, self.entering.entered = [], [], []
        if entered:
            self.told += await outside_rules.begin(self.session, self.versions.definition, entered, self.now)
        return more

    async def conclude(self) -> None:
        """What is to be told is in the outbox, and what matters to auditors in the chain: last, for it locks the chain's head."""
        await outbox.add(self.session, self.told)
        await audit.append(self.session, self.entries)

    async def _propose(self, ids: Sequence[UUID], names: Sequence[str]) -> None:
        for trigger in await outside_rules.in_force(self.session, "entry", names):
            definition = await self.versions.definition(self.session, trigger.version_id)
            wanted = definition.entry.triggers[trigger.position]
            assert isinstance(wanted, EventTrigger)
            await entries.propose_by_events(self.session, trigger, ids, wanted.key, wanted.hidden, self.now)

    async def _act(self, trigger: JourneyTrigger, occasion: Occasion) -> None:
        definition = await self.versions.definition(self.session, trigger.version_id)
        self.told += await outside_rules.act(self.session, trigger, definition, occasion, self.now)

    async def _conditions(self, contacts: Sequence[UUID] | None) -> None:
        test = "TRUE" if contacts is None else "w.contact_id = ANY(CAST(:contacts AS uuid[]))"
        parameters = {} if contacts is None else {"contacts": list(contacts)}
        for version_id, step_id in await watched.steps_with_conditions(self.session, contacts):
            definition = await self.versions.definition(self.session, version_id)
            these = OpenWaits(version_id, step_id, test, parameters)
            self._tell(await waits.match_conditions(self.session, these, definition.step(step_id, WaitForStep), self.now))

    def _tell(self, matches: Sequence[Match]) -> None:
        for match in matches:
            body = {"step_id": match.step_id, "visit": match.visit, "index": match.way, "details": match_details(match)}
            self.told.append(OutboxMessage(match.run_id, "matched", body))
