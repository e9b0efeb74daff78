"""Claiming a batch: what its runs want sent, and which of it this attempt may carry."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any
from uuid import UUID

from activities.contracts.payload import Scope
from activities.contracts.sending import SendResult
from activities.contracts.steps import StepVisit, VisitBatch
from activities.message import Message
from activities.replay_dedup import kept_messages
from activities.versions import Versions
from activities.ways import Way, Ways
from models.domain.decision import HourFacts, Outcome, decide_hours
from models.domain.journey.definition import Definition, Purpose, SendStep
from models.domain.quiet_hours import choose_zone, read_window
from models.settings import Settings
from models.store import audit, deliveries
from models.store.connections import SendingConnection
from models.store.deliveries import Claim, Claimed, Owner
from models.store.eligibility import Audience, load_audience
from models.store.session import Database, OrganizationSession
from models.tables.base import new_id


@dataclass(frozen=True)
class Wanted:
    """One message that a run asks for, and by which way."""

    claim: Claim
    step: SendStep
    allowed_until: datetime | None
    way: Way

    @property
    def run_id(self) -> UUID:
        return self.claim.run_id

    @property
    def sendable(self) -> bool:
        return self.way.trouble is None


@dataclass(frozen=True)
class Share:
    """The messages of one connection that this attempt carries."""

    connection: SendingConnection
    messages: Sequence[Message]


@dataclass(frozen=True)
class ClaimedBatch:
    wanted: Mapping[UUID, Wanted]  # by run: the whole batch
    shares: Sequence[Share]
    others: Sequence[Wanted]  # settled, carried by another attempt, or without a connection to send them by
    kept: Mapping[UUID, SendResult]  # by run: sent before by the run that it replays, or maybe so
    organization: Mapping[str, Any]  # as templates see it
    database_offset: float  # the database's clock (seconds since the epoch) less loop time


class Claimer:
    def __init__(self, database: Database, versions: Versions, settings: Settings) -> None:
        self._database = database
        self._versions = versions
        self._ways = Ways(database, settings)

    async def claim(self, batch: VisitBatch, attempt: UUID, now: datetime) -> ClaimedBatch:
        """One transaction, in a constant number of statements per connection: rows are claimed and all is read that
        sending needs. `now` is the workflow's clock."""
        async with self._database.organization(batch.scope.organization_id) as session:
            definition = await self._versions.definition(session, batch.scope.version_id)
            kept, entries = await kept_messages(session, batch, definition)
            wanted = [one for one in await self._want(session, batch, definition) if one.run_id not in kept]
            claims = [one.claim for one in wanted if one.sendable]
            claimed = {one.run_id: one for one in await deliveries.claim(session, _owner(batch.scope, attempt), claims)}
            mine = [one for one in wanted if one.run_id in claimed]
            audience = await load_audience(session, {one.run_id: one.claim.contact_id for one in mine})
            offset = audience.read_at.timestamp() - asyncio.get_running_loop().time()
            shares = await self._shares(session, mine, claimed, audience, now)
            if entries:
                await audit.append(session, entries)  # last: locks the chain's head
        await self._ways.mend(one.way for one in wanted)
        others = [one for one in wanted if one.run_id not in claimed]
        return ClaimedBatch({one.run_id: one for one in wanted}, shares, others, kept, audience.organization, offset)

    async def _want(self, session: OrganizationSession, batch: VisitBatch, definition: Definition) -> list[Wanted]:
        steps = {visit.step_id: definition.step(visit.step_id, SendStep) for visit in batch.visits}
        keys = {(step.connection_id, step.channel) for step in steps.values()}
        ways = {key: await self._ways.way(session, *key) for key in keys}
        return [_wanted(visit, step := steps[visit.step_id], ways[step.connection_id, step.channel]) for visit in batch.visits]

    async def _shares(
        self, session: OrganizationSession, mine: Sequence[Wanted], claimed: Mapping[UUID, Claimed], audience: Audience, now: datetime
    ) -> list[Share]:
        templates = await self._versions.templates(session, {one.claim.template_version_id for one in mine})
        hours_end = cache(partial(_hours_end, audience, now))  # a batch has few zones
        connections: dict[UUID, SendingConnection] = {}
        messages: defaultdict[UUID, list[Message]] = defaultdict(list)
        for one in mine:
            connection = one.way.connection
            assert connection is not None
            connections[connection.id] = connection
            row = claimed[one.run_id]
            template = templates.get(one.claim.template_version_id)
            recipient = audience.recipients.get(one.run_id)
            known = None if recipient is None else hours_end(one.step.channel, one.step.purpose, recipient.contact["timezone"])
            until, round = _sooner(one.allowed_until, known), one.claim.round  # hours or zone may be others than when it asked
            messages[connection.id].append(
                Message(row.id, one.run_id, one.claim.contact_id, one.step, template, recipient, row.attempts, until, round)
            )
        return [Share(connections[id], messages[id]) for id in messages]


def _hours_end(audience: Audience, now: datetime, channel: str, purpose: Purpose, timezone: str | None) -> datetime | None:
    """Until when a contact in this zone may be written to, as far as is known now. `now`: not any more; None: for good."""
    facts = HourFacts(
        channel, purpose, read_window(audience.quiet_hours, channel), choose_zone(timezone, audience.organization["timezone"])
    )
    decided = decide_hours(facts, now)
    return decided.allowed_until if decided.outcome is Outcome.SEND else now


def _sooner(one: datetime | None, other: datetime | None) -> datetime | None:
    """None: never."""
    return min((moment for moment in (one, other) if moment is not None), default=None)


def _owner(scope: Scope, attempt: UUID) -> Owner:
    return Owner(scope.journey_id, scope.version_id, scope.campaign_id, attempt)


def _wanted(visit: StepVisit, step: SendStep, way: Way) -> Wanted:
    assert step.template_version_id is not None  # always named in a published version
    claim = Claim(
        id=new_id(),
        run_id=visit.run_id,
        contact_id=visit.contact_id,
        step_id=visit.step_id,
        visit=visit.visit,
        round=visit.round,
        channel=step.channel,
        purpose=step.purpose,
        topic_id=step.topic_id,
        connection_id=None if way.connection is None else way.connection.id,
        template_version_id=step.template_version_id,
    )
    return Wanted(claim, step, visit.allowed_until, way)
