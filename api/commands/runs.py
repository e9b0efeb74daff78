"""Starting single runs. The row comes first, its workflow second: a row without a workflow can always be started."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from activities.contracts.journey import JOURNEY_WORKFLOW, JourneyInput
from activities.contracts.payload import Scope
from activities.starting import attributes
from api.commands import routing, temporal
from api.commands.starting import start_each
from api.dependencies import Caller, Services
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, Invalid, NotFound
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.entry import refusal
from models.domain.journey.run import RunState
from models.store import (
    audit,
    changes,
    entries,
    entry_pace,
    handovers,
    journey_versions,
    journeys,
    outbox,
    outside_rules,
    runs,
    waits,
)
from models.store.audience import Flags
from models.store.outbox import OutboxMessage
from models.store.session import OrganizationSession
from models.store.triggers import listens_to_events, listens_to_runs
from models.tables.base import new_id, utc_now
from models.tables.journeys import Journey, JourneyVersion, Run

OVERDUE = timedelta(seconds=10)  # a run that has recorded nothing for so long may lack its workflow


@dataclass(frozen=True)
class NewRun:
    """What is asked for. `version` None: the newest; `entry_key`: what tells two runs of one contact apart."""

    contact_id: UUID
    version: int | None
    variables: Mapping[str, Any]
    entry_key: str | None = None


async def start_run(caller: Caller, journey_id: UUID, wanted: NewRun, key: str | None) -> Run:
    """The contact is on its way: the run exists and its workflow is started. The same Idempotency-Key finds the same run.

    Raises:
        NotFound, Invalid: no such journey, version or contact.
        Conflict: the journey is paused, archived, has ended or has never been published, or its entry rules refuse the contact.
        Unavailable: the run exists but its workflow could not be started yet. Repeat with the same key; without, the
            run is started by the outbox, within a minute.
    """
    request = None if key is None else temporal.request_id(key, caller.organization_id, caller.actor.id, "run", journey_id)
    try:
        begun = await _on_record(caller, journey_id, wanted, request)
    except _RulesAppeared:
        begun = await _on_record(caller, journey_id, wanted, request)
    told = await start_workflow(caller.services, begun.run)
    if told and begun.unstarted:
        async with caller.session() as session:
            await outbox.delivered(session, begun.unstarted)
    if begun.noted or not told:
        routing.poke_soon(caller.services, caller.organization_id)
    return begun.run


@dataclass(frozen=True)
class _Begun:
    """`noted`: routing is to look at its contact now; `unstarted`: what the outbox says of it until its workflow is started."""

    run: Run
    noted: bool = False
    unstarted: Sequence[UUID] = ()


class _RulesAppeared(Exception):
    """The journey's first version with a rule about events was published between two looks: routing's lock comes before the journey's."""


async def _on_record(caller: Caller, journey_id: UUID, wanted: NewRun, request: UUID | None) -> _Begun:
    """The run exists. One with rules about events is made while routing stands still, as waits are opened: what it matches before, has
    happened before the run, and what it matches later ends the run. A journey without such rules waits for nobody."""
    async with caller.session() as session:
        if request is not None and (run := await runs.find_by_request(session, request)) is not None:
            return _Begun(run)
        apart = await outside_rules.heeds_events(session, journey_id)
        if apart:
            await waits.routing_lock(session, alone=False)
        run, noted = await _create(session, caller, journey_id, wanted, request, apart)
        return _Begun(run, noted, await outbox.add(session, [OutboxMessage(run.id, "start")]))


async def _create(
    session: OrganizationSession, caller: Caller, journey_id: UUID, wanted: NewRun, request: UUID | None, apart: bool
) -> tuple[Run, bool]:
    """The run, and whether routing is to look at its contact after the commit. `apart`: routing stands still."""
    journey = await journeys.get(session, journey_id, lock=True)
    refuse_closed(journey)
    version = await published_version(session, journey_id, wanted.version)
    if not await runs.contact_exists(session, wanted.contact_id):
        raise Invalid.field("contact_id", "unknown_contact", "There is no contact with this id.")
    definition = Definition.model_validate(version.definition)
    if listens_to_events(definition) and not apart:
        raise _RulesAppeared
    await _obey_entry_rules(session, version, definition, wanted)
    run_id = new_id()
    run = await runs.create(
        session,
        run_id=run_id,
        journey_id=journey_id,
        version_id=version.id,
        contact_id=wanted.contact_id,
        workflow_id=workflow_id.single_run(caller.organization_id, run_id),
        step_id=version.definition["start"],
        variables=wanted.variables,
        request_id=request,
        entry_key=wanted.entry_key,
    )
    noted = listens_to_runs(definition)
    if noted:
        await _begin(session, run, definition)
    details = {"journey_id": str(journey_id), "version_id": str(version.id), "contact_id": str(wanted.contact_id)}
    await audit.append(session, [NewEntry("run.started", "run", str(run_id), caller.actor, details)])
    return run, noted


async def _begin(session: OrganizationSession, run: Run, definition: Definition) -> None:
    """A run that a rule about its contact ends already is marked so, and its workflow starts with it. Routing looks once more: what it
    takes before this transaction has committed, it takes without this run, and its lock is taken before the journey's or not at all."""

    async def same(_: OrganizationSession, version_id: UUID) -> Definition:
        return definition

    await outside_rules.begin(session, same, [run.id], utc_now(), missed=False)
    await changes.note(session, [run.contact_id])
    await session.refresh(run)


async def _obey_entry_rules(session: OrganizationSession, version: JourneyVersion, definition: Definition, wanted: NewRun) -> None:
    """Raises Conflict where the journey's entry rules do not let the contact in. The caller holds the journey's lock."""
    now = utc_now()
    if definition.has_ended(now):
        raise Conflict("This journey has ended; nobody enters it any more.")
    most = definition.entry.per_hour
    if most is not None and await entry_pace.fullest_hour(session, version.journey_id) >= most:
        raise Conflict("This journey has taken as many contacts as it takes in an hour; try again later.")
    key = (wanted.contact_id, wanted.entry_key)
    reason = refusal(definition.entry, (await entries.pasts(session, version.journey_id, [key]))[key], now, "api")
    if reason is not None:
        raise Conflict(f"This contact cannot enter the journey now: {REFUSALS[reason]}.")


REFUSALS = {
    "entered_before": "it has entered before, and the journey is entered once",
    "under_way": "it is under way in it already",
    "cooling_down": "it entered a short while ago, and the journey's cool-down is not over",
    "maximum_reached": "it has entered as often as the journey allows",
}


def refuse_closed(journey: Journey) -> None:
    """Raises Conflict for a journey that takes nothing new."""
    if journey.archived_at is not None:
        raise Conflict("This journey is archived; it takes no new runs.")
    if journey.paused_at is not None:
        raise Conflict("This journey is paused; resume it first, then start the run.")


async def published_version(session: OrganizationSession, journey_id: UUID, number: int | None) -> JourneyVersion:
    """The version with this number, or the newest. Raises Conflict before the first publication, Invalid for a wrong number."""
    newest = await journey_versions.find_newest(session, journey_id)
    if newest is None:
        raise Conflict("This journey has no published version yet; publish it first.")
    if number is None or number == newest.number:
        return newest
    try:
        return await journey_versions.get(session, journey_id, number)
    except NotFound:
        raise Invalid.field("version", "unknown_version", f"The journey's versions are 1 to {newest.number}.") from None


async def start_workflow(services: Services, run: Run) -> bool:
    """Whether it was started just now, and operators have said nothing meanwhile, too late for its input and too early for a signal.
    Otherwise the run's message stays in the outbox, which tells it: whoever started it may have got no further."""
    async with services.database.organization(run.organization_id) as session:
        version = (await journey_versions.by_id(session, [run.version_id]))[run.version_id]
        said = await _in_force(session, run)
    definition = Definition.model_validate(version.definition)
    scope = Scope(organization_id=run.organization_id, journey_id=run.journey_id, version_id=run.version_id)
    # The run's variables stay in its row: branches and templates read them there, and payloads hold ids only.
    leaving = None if run.exit_requested_at is None else run.exit_reason or "exit_rule"
    state = RunState(run_id=run.id, contact_id=run.contact_id, step_id=definition.start, leaving=leaving)
    cancelled = said.cancelled or run.cancel_requested_at is not None
    given = JourneyInput(scope=scope, definition=definition, runs=[state], held_by=sorted(said.held_by), cancelled=cancelled)
    found_by = attributes(run.organization_id, run.journey_id, run.version_id)
    if not await temporal.start(services, JOURNEY_WORKFLOW, given, run.workflow_id, found_by):
        return False
    async with services.database.organization(run.organization_id) as session:
        return await _in_force(session, run) == said


async def _in_force(session: OrganizationSession, run: Run) -> Flags:
    return (await handovers.in_force(session, {run.workflow_id: (run.journey_id, None)}))[run.workflow_id]


async def _started(services: Services, run: Run) -> None:
    await start_workflow(services, run)


async def start_missing_workflows(services: Services, organization_id: UUID, alive: Callable[[], None], limit: int = 100) -> int:
    """Every run started over the API that has recorded nothing for ten seconds has a workflow. Answers how many were looked at.

    Safe to repeat and to run beside itself: a workflow that exists, or has existed, is not started again. `alive` is called
    before each start, which may take seconds.

    Raises:
        NotStarted: some could not be started; it kept no other waiting.
    """
    async with services.database.organization(organization_id) as session:
        missing = await runs.never_started(session, OVERDUE, limit)
    return await start_each("run", missing, lambda run: _started(services, run), alive)
