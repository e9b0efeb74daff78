"""Operations on many runs: previewed, bound to the preview's count, then carried out by a workflow."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from activities.contracts.operations import OPERATION_WORKFLOW, OperationRef
from activities.starting import attributes
from api.commands import temporal
from api.commands.starting import start_each
from api.dependencies import Caller, Services
from models.domain.audit import NewEntry
from models.domain.errors import Conflict, Invalid, NotAllowed, Problem, Unavailable
from models.domain.journey import workflow_id
from models.domain.journey.draft import storable
from models.domain.journey.operations import OPERATIONS, VARIABLES_BYTES, Operation, RunSelection
from models.domain.phrases import json_path, plain_message
from models.store import audit, replay_plans, run_operations, run_selection
from models.store.run_selection import Count, RunQuery
from models.store.session import OrganizationSession
from models.tables.operating import RunOperation

OVERDUE = timedelta(seconds=10)  # an operation that has been running for so long may lack its workflow


async def preview(caller: Caller, command: str, selection: RunSelection, arguments: dict[str, Any], maximum: int | None) -> RunOperation:
    """How many runs fit, where they stand, and to how many of them the command would be said: kept for a quarter of an hour. No run is
    touched.

    Raises:
        Invalid: there is no such command, its arguments are wrong, or the selection is empty or names what there is not.
        NotAllowed: the caller may not do this to runs, or may not see what the segment looks at.
    """
    operation = _operation(command)
    _authorize(caller, operation, selection)
    if not selection.given():
        raise Invalid.field("filter", "empty", "Say which runs: an empty filter would be every run there is.")
    wanted = RunQuery(command, selection, _arguments(operation, arguments), maximum)
    async with caller.session() as session:
        counts = await run_selection.count(session, wanted)
        seen = _seen(counts)
        runs = sum(each.runs for each in counts if each.why_not is None)
        taken = min(runs, operation.most_runs if maximum is None else maximum)
        if taken > operation.most_runs or (taken < runs and maximum is None):
            raise Invalid.field(
                "limit", "too_many", f"{runs} runs fit; give a limit of at most {operation.most_runs}, and repeat for the others."
            )
        bound = await run_selection.bound(session, wanted)
        effects = await _effects(session, wanted, taken, bound)
        row = await run_operations.add(session, wanted, {**seen, "obeying": runs, **effects, **bound}, taken, caller.actor.id)
        details = {"command": command, "filter": row.selection, "runs": taken}
        await audit.append(session, [NewEntry("run_operation.previewed", "run_operation", str(row.id), caller.actor, details)])
    return row


async def _effects(session: OrganizationSession, wanted: RunQuery, runs: int, bound: Mapping[str, Any]) -> dict[str, Any]:
    """What the command would come to, beyond the number of runs, where that can be told."""
    if wanted.command != "replay":
        return {}
    run_ids = await run_selection.obeying(session, replace(wanted, maximum=runs))
    found = await replay_plans.dry_run(session, run_ids, replay_plans.wanted_of(wanted.arguments, "", run_operations.versions_in(bound)))
    steps = [{"step_id": step_id, **counted} for step_id, counted in sorted(found.by_step.items())]
    return {"effects": {**found.numbers, "by_step": steps}, "ends_at_once": dict(found.ended)}


def _operation(command: str) -> Operation:
    if command not in OPERATIONS:
        raise Invalid.field("command", "unknown_command", f"The commands are {', '.join(OPERATIONS)}.")
    return OPERATIONS[command]


def _authorize(caller: Caller, operation: Operation, selection: RunSelection) -> None:
    needed = [operation.permission, *(("segments.read", "contacts.read") if selection.segment_id is not None else ())]
    for permission in needed:
        if permission not in caller.permissions:
            raise NotAllowed.lacking(permission)


def _arguments(operation: Operation, given: dict[str, Any]) -> dict[str, Any]:
    if problems := storable(given, "arguments", VARIABLES_BYTES + 1024):
        raise Invalid(problems)
    try:
        return operation.arguments.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        problems = [Problem(json_path(("arguments", *one["loc"])), str(one["type"]), plain_message(one)) for one in found]
        raise Invalid(problems) from None


def _seen(counts: Sequence[Count]) -> dict[str, Any]:
    """As it is kept: numbers by status, by step and by why the command makes no sense."""
    by_status: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    by_step: dict[tuple[int, str | None], list[int]] = {}
    for each in counts:
        by_status[each.status] += each.runs
        place = by_step.setdefault((each.version, each.step_id), [0, 0])
        place[0] += each.runs
        if each.why_not is None:
            place[1] += each.runs
        else:
            refused[each.why_not] += each.runs
    return {
        "fitting": sum(by_status.values()),
        "stay_paused": sum(each.runs for each in counts if each.why_not is None and each.stays_paused),
        "by_status": dict(by_status),
        "by_step": [
            {"version": version, "step_id": step_id, "runs": runs, "obeying": obeying}
            for (version, step_id), (runs, obeying) in by_step.items()
        ],
        "not_applicable": dict(refused),
    }


async def execute(caller: Caller, preview_id: UUID, reason: str) -> RunOperation:
    """The previewed operation is under way, by a workflow, for exactly the runs that fit now; said again, nothing changes.

    Raises:
        NotFound: no such preview.
        NotAllowed: the caller may not do this to runs.
        PreviewOutdated: the preview has expired, or is not of exactly these runs, on these versions, any more: nothing is done.
        Conflict: it was carried out already, for another reason.
        Unavailable: it is under way, but its workflow could not be started yet. Repeat; upkeep starts it otherwise.
    """
    async with caller.session() as session:
        row = await run_operations.get(session, preview_id, lock=True)
        _authorize(caller, _operation(row.command), RunSelection.model_validate(row.selection))
        if row.status == "previewed":
            await _execute(session, caller, row, reason)
        elif row.reason != reason:
            raise Conflict("This operation has been carried out already, for another reason; make a new preview.")
    if row.status == "running":
        await start_workflow(caller.services, row)
    return row


async def _execute(session: OrganizationSession, caller: Caller, row: RunOperation, reason: str) -> None:
    await run_operations.execute(session, row, caller.actor, reason)
    details = {"command": row.command, "filter": row.selection, "limit": row.maximum, "runs": row.runs, "reason": reason}
    # Names of steps and choices only: what else an operation may be given could be personal.
    arguments: dict[str, Any] = {
        name: row.arguments[name] for name in ("to_step", "from_step", "version", "resend") if name in row.arguments
    }
    if "variables" in row.arguments:
        arguments["names"] = sorted(row.arguments["variables"])  # their values are nobody's business here
    entry = NewEntry("run_operation.executed", "run_operation", str(row.id), caller.actor, {**details, **arguments})
    await audit.append(session, [entry])


async def cancel(caller: Caller, operation_id: UUID, reason: str | None) -> RunOperation:
    """Runs that have not been told are left alone; those that have obeyed stay as they are. Repeating is harmless. It is the operation's
    workflow that ends it, so one that somebody terminated is started.

    Raises:
        NotFound: no such operation.
        Conflict: it is over, or was never carried out.
    """
    async with caller.session() as session:
        row, news = await run_operations.cancel(session, operation_id, caller.actor.id)
        if news:
            details = {"reason": reason} if reason else {}
            entry = NewEntry("run_operation.cancellation_requested", "run_operation", str(row.id), caller.actor, details)
            await audit.append(session, [entry])
    with suppress(Unavailable):  # it runs already, or upkeep starts it
        await start_workflow(caller.services, row)
    return row


async def start_workflow(services: Services, row: RunOperation) -> None:
    """The operation's workflow is running, or has completed. Raises Unavailable."""
    await temporal.start(
        services,
        OPERATION_WORKFLOW,
        OperationRef(organization_id=row.organization_id, operation_id=row.id, command=row.command),
        workflow_id.run_operation(row.organization_id, row.id),
        attributes(row.organization_id),
        restarts=True,
    )


async def start_missing_workflows(services: Services, organization_id: UUID, alive: Callable[[], None], limit: int = 100) -> int:
    """Every operation that has been running for ten seconds has a workflow. Answers how many were looked at.

    Safe to repeat and to run beside itself: a workflow that runs, or has completed, is not started again. One that was closed in another
    way begins anew: runs that are settled are not told again, and a word that is said again is the same word.

    Raises:
        NotStarted: some could not be started; it kept no other waiting.
    """
    async with services.database.organization(organization_id) as session:
        rows = await run_operations.overdue(session, OVERDUE, limit)
    return await start_each("operation", rows, lambda row: start_workflow(services, row), alive)
