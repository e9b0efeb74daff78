"""Words of operators and reviewers about single runs. The run's workflow obeys, and records what came of it."""

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from activities.contracts.run_control import Place, RunControl, RunControlled
from api.commands import command_keys, routing, temporal
from api.commands.command_keys import Remembered
from api.commands.runs import start_workflow
from api.commands.temporal import NoSuchWorkflow, RunLeft
from api.dependencies import Caller, Services
from models.domain.errors import Conflict, Invalid, Unavailable
from models.domain.findings import LOST, REPLAY
from models.domain.journey.operations import MOST_VARIABLES, VARIABLES_BYTES
from models.domain.journey.run import FINISHED, Phase
from models.store import journey_versions, lost_runs, run_places, run_variables, runs
from models.store.run_variables import VariableChange
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.journeys import Run

Command = Literal["pause", "resume", "cancel", "retry", "skip", "jump", "cancel_step", "restore_step", "approve", "reject"]


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
    for wait in (*_LOOKS, None):
        try:
            return await _ask(caller.services, run, control, update_id)
        except NoSuchWorkflow as error:
            asked = run.workflow_id
            async with caller.session() as session:
                run = await runs.get(session, run.id)
            moved = moved or run.workflow_id != asked or isinstance(error, RunLeft)
            if not moved or wait is None or run.status in FINISHED:
                raise
        if run.workflow_id == asked:
            await asyncio.sleep(wait)
    raise AssertionError("the last look returns or raises")


_LOOKS = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds, after which a run on its way is asked about again


async def _ask(services: Services, run: Run, control: RunControl, update_id: str) -> RunControlled:
    """A run that has recorded nothing may lack its workflow: that is started, and asked again."""
    try:
        answers = await temporal.control_runs(services, run.workflow_id, control, update_id)
    except NoSuchWorkflow:
        if run.campaign_id is not None or run.replay_of is not None or run.sequence > 0:
            raise
        await start_workflow(services, run)
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
