"""Telling workflows what stands in the outbox: starting those of new runs, signalling those under way."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from typing import TypeVar
from uuid import UUID

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities.contracts.control import ControlledKind
from activities.contracts.journey import JourneyInput, RunMessage, RunMessages
from activities.contracts.payload import Scope
from activities.missed_words import Known, tell_missed_words
from activities.replaying import replay_inputs
from activities.signals import refuses_one
from activities.starting import start_journey
from activities.versions import Versions
from models.domain.journey.run import RunState
from models.store import carriers, entries, journeys
from models.store.audience import Flags
from models.store.carriers import Subject
from models.store.entries import StartingRuns
from models.store.outbox import PendingMessage
from models.store.session import Database

Answer = TypeVar("Answer")
AT_ONCE = 16
MESSAGES_PER_SIGNAL = 500


class OutboxDelivery:
    def __init__(self, database: Database, versions: Versions, temporal: Client, task_queue: str) -> None:
        self.database = database
        self.versions = versions
        self.temporal = temporal
        self.task_queue = task_queue

    async def tell(self, organization_id: UUID, pending: Sequence[PendingMessage]) -> list[UUID]:
        """The ids of those that Temporal has now, or that nobody need hear any more. A workflow that is not there yet, or for which
        Temporal takes nothing, is told later; one that is gone for good is not, or what can never be told would stand in the way of all
        that comes after it.

        Raises:
            RPCError: Temporal is away; saying it all again is harmless.
        """
        by_workflow: defaultdict[str, list[PendingMessage]] = defaultdict(list)
        for message in pending:
            if not message.finished:
                by_workflow[message.workflow_id].append(message)
        starts = {name for name, messages in by_workflow.items() if any(message.kind == "start" for message in messages)}
        for name in await self._start_all(organization_id, sorted(starts)):
            del by_workflow[name]
        limit = asyncio.Semaphore(AT_ONCE)
        heard = await asyncio.gather(*(_bounded(limit, self._signal(name, messages)) for name, messages in by_workflow.items()))
        return [message.id for message in pending if message.finished] + [id for ids in heard for id in ids]

    async def _start_all(self, organization_id: UUID, names: Sequence[str]) -> list[str]:
        """The workflows are there and know what operators have said, but for those that are answered: Temporal takes nothing for them."""
        if not names:
            return []
        async with self.database.organization(organization_id) as session:
            given = await replay_inputs(session, self.versions, names)
            starting = await entries.starting(session, names)
            subjects = await carriers.subjects(session, names)
            definitions = {each.version_id: await self.versions.definition(session, each.version_id) for each in starting.values()}
            paused = {
                journey_id: (await journeys.get(session, journey_id)).paused_at is not None
                for journey_id in {each.journey_id for each in starting.values()}
            }
        limit = asyncio.Semaphore(AT_ONCE)
        given |= {
            name: JourneyInput(
                scope=Scope(organization_id=organization_id, journey_id=each.journey_id, version_id=each.version_id),
                definition=definitions[each.version_id],
                runs=_states(each, definitions[each.version_id].start),
                held_by=[str(ControlledKind.JOURNEY)] if paused[each.journey_id] else [],
                cancelled=all(run.cancelled for run in each.runs),
            )
            for name, each in starting.items()
        }
        started = await asyncio.gather(*(_bounded(limit, self._start(name, journey)) for name, journey in given.items()))
        there = dict(one for found in started for one in found)
        refused = given.keys() - there.keys()
        # What has recorded something already was started by an attempt that got no further.
        known = {
            name: Known(_scope(organization_id, subject), _flags(given[name]) if there.get(name) else None)
            for name, subject in subjects.items()
            if name not in refused
        }
        return [*refused, *await tell_missed_words(self.temporal, self.database, organization_id, known)]

    async def _start(self, name: str, given: JourneyInput) -> list[tuple[str, bool]]:
        """Its name, and whether it was started just now; nothing if Temporal does not take it."""
        try:
            return [(name, await start_journey(self.temporal, self.task_queue, name, given))]
        except RPCError as error:
            if not refuses_one(error, name):
                raise
            return []

    async def _signal(self, name: str, messages: Sequence[PendingMessage]) -> list[UUID]:
        said = [message for message in messages if message.kind != "start"]
        try:
            for first in range(0, len(said), MESSAGES_PER_SIGNAL):
                told = RunMessages(messages=[_message(each) for each in said[first : first + MESSAGES_PER_SIGNAL]])
                await self.temporal.get_workflow_handle(name).signal("tell", told)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return [message.id for message in messages if message.kind == "start" or message.replayed or message.lost]
            if refuses_one(error, name):
                return []
            raise
        return [message.id for message in messages]


def _scope(organization_id: UUID, subject: Subject) -> Scope:
    return Scope(
        organization_id=organization_id, journey_id=subject.journey_id, version_id=subject.version_id, campaign_id=subject.campaign_id
    )


def _flags(given: JourneyInput) -> Flags:
    return Flags(frozenset(given.held_by), given.cancelled)


async def _bounded(limit: asyncio.Semaphore, work: Awaitable[list[Answer]]) -> list[Answer]:
    async with limit:
        return await work


def _states(starting: StartingRuns, start: str) -> list[RunState]:
    return [
        RunState(run_id=run.run_id, contact_id=run.contact_id, step_id=start, leaving="journey_cancelled" if run.cancelled else run.leaving)
        for run in starting.runs
    ]


def _message(pending: PendingMessage) -> RunMessage:
    return RunMessage.model_validate({**pending.body, "run_id": pending.run_id, "kind": pending.kind})
