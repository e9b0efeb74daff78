"""Starting and controlling single runs. The row comes first, its workflow second: a row without a workflow can always be started."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from activities.contracts.journey import JOURNEY_WORKFLOW, JourneyInput
from activities.contracts.payload import Scope
from activities.contracts.run_control import Place, RunControl, RunControlled
from activities.starting import attributes
from api.commands import command_keys, routing, temporal
from api.commands.command_keys import Remembered
from api.commands.starting import start_each
from api.commands.temporal import NoSuchWorkflow, RunLeft
from api.dependencies import Caller, Services
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, Invalid, NotFound, Unavailable
from models.domain.findings import LOST, REPLAY
from models.domain.journey import workflow_id
from models.domain.journey.definition import Definition
from models.domain.journey.entry import refusal
from models.domain.journey.operations import MOST_VARIABLES, VARIABLES_BYTES
from models.domain.journey.run import FINISHED, Phase, RunState
from models.store import (
    audit,
    changes,
    entries,
    entry_pace,
    handovers,
    journey_versions,
    journeys,
    lost_runs,
    outbox,
    outside_rules,
    run_places,
    run_variables,
    runs,
    waits,
)
from models.store.audience import Flags
from models.store.outbox import OutboxMessage
from models.store.run_variables import VariableChange
from models.store.session import OrganizationSession
from models.store.triggers import listens_to_events, listens_to_runs
from models.tables.base import new_id, utc_now
from models.tables.journeys import Journey, JourneyVersion, Run

Command = Literal["pause", "resume", "cancel", "retry", "skip", "jump", "cancel_step", "restore_step", "approve", "reject"]
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
    told = await _start_workflow(caller.services, begun.run)
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


async def _start_workflow(services: Services, run: Run) -> bool:
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
    await _start_workflow(services, run)


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


@dataclass(frozen=True)
class Controlled:
    """The run as it is recorded now, its phase as its workflow says, and whether the command changed anything."""

    run: Run
    phase: str
    changed: bool


@dataclass(frozen=True)
class Word:
    """An operator's word about one run. `place`: where the run stood when it was said (None: as it is recorded now, for a skip and for a
    review's decision); `to_step`: which other step is meant."""

    command: Command
    reason: str | None = None
    place: Place | None = None
    to_step: str | None = None


async def control_run(caller: Caller, run_id: UUID, word: Word, key: str | None) -> Controlled:
    """The run's workflow has obeyed the command. What is so already stays so, and is no error.

    The workflow records what happened, with the caller as its actor, in timeline and audit. The same word of the same caller about the
    run as it stands, or with the same key, is heard once; what somebody else says, or for another reason, is a word of its own. A key whose
    word was answered gets that answer again, whichever workflow carries the run by then, and nobody is asked.

    Raises:
        NotFound: no such run.
        Invalid: its version has no such step, or (KeyReused) the key was used for another request.
        Conflict: the run is in a phase in which the command makes no sense, has left the step that was meant, or was paused once more after
            it was first to be resumed.
        Unavailable: no answer in time. The command may still be obeyed: repeat with the same key.
    """
    async with caller.session() as session:
        run = await runs.get(session, run_id)
        said, kept = Remembered(word=new_id(), sequence=run.sequence, place=await _meant(session, run, word)), None
        if key is not None:
            kept = await command_keys.reserve(session, caller, key, _digest(caller, run_id, word), said)
            said = kept.said
            if said.phase is not None:
                return Controlled(run, said.phase, said.changed)
        await _check(session, run, word, said)
        if run.status in FINISHED:
            return _settled(run, word.command)
    meant = replace(word, place=said.place)
    # With a key as it was said: where the run stands may have changed when that is repeated, which does not make it another word.
    update_id = f"{word.command}/{run_id}/{_digest(caller, run_id, word if key else meant, str(said.word or key) if key else run.sequence)}"
    request = None if key is None else temporal.request_id(update_id, caller.organization_id)
    async with command_keys.releasing(caller, kept):
        done = await _say(caller, run, meant, update_id, request)
    if kept is not None:
        await command_keys.settle(caller, kept, done.phase, done.changed)
    return done


async def _say(caller: Caller, run: Run, meant: Word, update_id: str, request: UUID | None) -> Controlled:
    control = RunControl(
        command=meant.command,
        run_ids=[run.id],
        actor_kind=caller.actor.kind,
        actor_id=caller.actor.id,
        reason=meant.reason,
        places={} if meant.place is None else {str(run.id): meant.place},
        to_step=meant.to_step,
        request_id=request,
    )
    try:
        answer = await _answer(caller, run, control, update_id)
    except NoSuchWorkflow:
        return await _unanswered(caller, run.id, meant.command, meant.reason)
    async with caller.session() as session:
        run = await runs.get(session, run.id)
    return _judged(run, meant.command, answer)


def _digest(caller: Caller, run_id: UUID, word: Word, *more: str | int) -> str:
    """By what a word is known: who says it, about which run, and all that it says. Temporal answers a word that it has heard with what
    became of it then; another one, answered so, would be lost."""
    place = None if word.place is None else [word.place.step_id, word.place.visit]
    said = [caller.actor.kind, str(caller.actor.id), str(run_id), word.command, place, word.to_step, word.reason, *more]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


_OF_ONE_PLACE: frozenset[Command] = frozenset({"skip", "approve", "reject"})


async def _meant(session: OrganizationSession, run: Run, word: Word) -> Place | None:
    """A skip, or a review's decision, that names no place means the one where the run is recorded now, and no later visit of a step on a
    loop."""
    if word.command not in _OF_ONE_PLACE or word.place is not None or run.step_id is None:
        return word.place
    return Place(step_id=run.step_id, visit=await run_places.visit(session, run.id))


async def _check(session: OrganizationSession, run: Run, word: Word, said: Remembered) -> None:
    """Raises Invalid for a step that the run's version lacks, Conflict for a resume that would lift a pause set after it was said."""
    if word.to_step is not None or word.place is not None:
        await _check_steps(session, run, word)
    if word.command == "resume" and said.sequence is not None and await run_places.paused_since(session, run.id, said.sequence):
        raise Conflict("The run was paused once more after this was first asked for. To lift that pause, too, ask with another key.")


async def _check_steps(session: OrganizationSession, run: Run, word: Word) -> None:
    steps = (await journey_versions.by_id(session, [run.version_id]))[run.version_id].definition["steps"]
    for step_id in (word.to_step, word.place.step_id if word.place else None):
        if step_id is not None and step_id not in steps:
            raise Invalid.field("step_id", "unknown_step", f"The steps of the run's version are {', '.join(sorted(steps))}.")


def _settled(run: Run, command: Command) -> Controlled:
    if command == "cancel" and run.status == Phase.CANCELLED:
        return Controlled(run, run.status, changed=False)
    raise Conflict(f"The run is {run.status} already; there is nothing left to {command.replace('_', ' ')}.")


async def _answer(caller: Caller, run: Run, control: RunControl, update_id: str) -> RunControlled:
    """Asks again where a publish plan has moved the run meanwhile. Its old workflow lets it go a moment before its row says where it is,
    and before its new one has begun."""
    moved = False
    for pause in (*_LOOKS, None):
        try:
            return await _ask(caller.services, run, control, update_id)
        except NoSuchWorkflow as error:
            asked = run.workflow_id
            async with caller.session() as session:
                run = await runs.get(session, run.id)
            moved = moved or run.workflow_id != asked or isinstance(error, RunLeft)
            if not moved or pause is None or run.status in FINISHED:
                raise
        if run.workflow_id == asked:
            await asyncio.sleep(pause)
    raise AssertionError("the last look returns or raises")


_LOOKS = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds, after which a run on its way is asked about again


async def _ask(services: Services, run: Run, control: RunControl, update_id: str) -> RunControlled:
    """A run that has recorded nothing may lack its workflow: that is started, and asked again."""
    try:
        answers = await temporal.control_runs(services, run.workflow_id, control, update_id)
    except NoSuchWorkflow:
        if run.campaign_id is not None or run.replay_of is not None or run.sequence > 0:
            raise
        await _start_workflow(services, run)
        answers = await temporal.control_runs(services, run.workflow_id, control, update_id)
    return answers[0]


async def _unanswered(caller: Caller, run_id: UUID, command: Command, reason: str | None) -> Controlled:
    """Nobody carries the run: it has just finished, or its campaign has not started its workflow yet."""
    async with caller.session() as session:
        run = await runs.get(session, run_id)
    if run.status in FINISHED:
        return _settled(run, command)
    if run.reason == LOST:
        return await _of_lost(caller, run_id, command, reason)
    raise Unavailable(
        f"The run cannot {_IN_WORDS.get(command, command)} just now: it is only starting, just finishing, or on its way to another "
        "version. Repeat in a few seconds. If what carries it was ended from outside, it may take a minute until that is known."
    )


_IN_WORDS: Mapping[Command, str] = {"cancel_step": "cancel a step", "restore_step": "restore a step"}


async def _of_lost(caller: Caller, run_id: UUID, command: Command, reason: str | None) -> Controlled:
    """A run whose workflow is gone for good can only be ended, here and by the record alone, or replayed."""
    if command != "cancel":
        raise Conflict(
            f"The run's workflow is gone, so there is nothing to {command.replace('_', ' ')}. Replay it ({REPLAY}), or cancel it."
        )
    async with caller.session() as session:
        return Controlled(await lost_runs.cancel(session, run_id, caller.actor, reason), str(Phase.CANCELLED), changed=True)


async def review_run(
    caller: Caller, run_id: UUID, approved: bool, reason: str | None, key: str | None, place: Place | None = None
) -> Controlled:
    """The run that waits for a review goes the way that the person has decided of this one (`place` None: of that at which the run is
    recorded now), and of no later one. Raises as `control_run`."""
    return await control_run(caller, run_id, Word("approve" if approved else "reject", reason, place), key)


async def change_variables(caller: Caller, run_id: UUID, values: Mapping[str, Any], reason: str | None) -> Run:
    """The run holds these values (None: not that variable any more), and its workflow will be told of their names. What is in flight for
    it may have read the old ones. What is so already changes nothing.

    Raises:
        NotFound: no such run.
        Conflict: the run is over.
        Invalid: it would have too many variables, or too large ones.
    """
    async with caller.session() as session:
        await runs.get(session, run_id)
        found = await run_variables.change(session, [run_id], VariableChange(values, caller.actor, reason))
        if found[run_id] == "variables_too_large":
            raise Invalid.field(
                "variables", "too_large", f"A run has at most {MOST_VARIABLES} variables, of {VARIABLES_BYTES // 1024} KB together."
            )
        run = await runs.get(session, run_id)
        if found[run_id] == "finished":
            raise Conflict(f"The run is {run.status} already; nothing reads its variables any more.")
        await session.refresh(run)
    if found[run_id] is None:
        routing.poke_soon(caller.services, caller.organization_id)
    return run


_WANTED: Mapping[Command, str] = {"pause": Phase.PAUSED, "cancel": Phase.CANCELLED}


def _judged(run: Run, command: Command, answer: RunControlled) -> Controlled:
    """Nothing changed is fine when it is so already, and a conflict when it cannot be so."""
    so_already = answer.phase == _WANTED.get(command) or (command == "resume" and answer.phase not in (*FINISHED, Phase.PAUSED))
    if answer.changed or so_already:
        return Controlled(run, answer.phase, answer.changed)
    if answer.phase in FINISHED:
        raise Conflict(f"The run is {answer.phase} already; there is nothing left to {command.replace('_', ' ')}.")
    if command == "resume":
        raise Conflict("The run is paused together with its campaign or journey; resume that.")
    if command == "cancel":  # asked for before, and still waiting for what is in flight
        return Controlled(run, answer.phase, changed=False)
    if answer.why == "moved_on":
        here = answer.step_id or run.step_id
        visit = "" if answer.visit in (None, 1) else f", at its visit {answer.visit}"
        raise Conflict(f"The run has left that step; it stands at {here} now{visit}. Say again what is meant, with that step.")
    if command in ("approve", "reject"):
        decided = answer.why == "already"
        raise Conflict("The run's review is decided already." if decided else "The run does not wait for a review.")
    if answer.why == "unknown_step":
        raise Conflict("The run was moved to another version meanwhile, which has no such step.")
    if command in ("cancel_step", "restore_step") or (command == "jump" and answer.why == "already"):  # it is so already
        return Controlled(run, answer.phase, changed=False)
    raise Conflict(f"The run is {answer.phase}; only a run that needs attention can {command}.")
