"""Carrying an operation on many runs out: one page's runs are told, and what came of it is on record."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast
from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.contracts.operations import OperationEnd, OperationPage, OperationPageDone, OperationProgress
from activities.contracts.run_control import CONTROL_RUNS, Place, RunControl, RunControlled
from activities.heartbeat import heartbeating
from activities.poking import poke
from activities.updating import Updates
from models.domain.audit import Actor
from models.domain.findings import LOST
from models.domain.journey.operations import OPERATIONS, PAUSED_AGAIN
from models.domain.journey.run import Phase
from models.store import lost_runs, run_operations, run_variables
from models.store.run_operations import Item, Settled
from models.store.run_variables import VariableChange
from models.store.session import Database, OrganizationSession
from models.tables.operating import RunOperation

RUNS_AT_ONCE = 300  # of one page: a workflow hears of at most so many in one update


class OperationActivities:
    def __init__(self, database: Database, temporal: Client) -> None:
        self.database = database
        self.temporal = temporal

    def methods(self) -> list[Callable[..., Any]]:
        return [self.control_page, self.set_variables_page, self.finish_operation]

    @activity.defn(name="control_page")
    async def control_page(self, page: OperationPage) -> OperationPageDone:
        """The workflows of the next page's runs have been told, each once with all of its runs, and what each run answered is on record.

        Safe to run twice: only runs that are not settled are told, and the update's id is made from the operation and the page, so that
        a workflow which did not answer in time and is asked again (by an attempt or by a pass) obeys once and answers the same. A
        workflow that does not answer, is closed, or does not carry a run any more keeps no other waiting. Runs whose workflow is gone for
        good are not asked: to cancel them is a matter of the record alone, and nothing else can be said to them.
        """
        async with heartbeating():
            ref = page.operation
            async with self.database.organization(ref.organization_id) as session:
                operation = await run_operations.get(session, ref.operation_id)
                items, until = await next_page(session, operation, page.after)
            if not items:
                return OperationPageDone()
            carried = [item for item in items if not item.lost]
            updates = Updates(self.temporal)
            words = [_tell(updates, operation, until, name, told) for name, told in _by_workflow(carried).items()]
            settled = [one for some in await asyncio.gather(*words) for one in some]
            async with self.database.organization(ref.organization_id) as session:
                await run_operations.settle(session, ref.operation_id, settled)
            async with self.database.organization(ref.organization_id) as session:
                await _settle_lost(session, operation, [item.run_id for item in items if item.lost])
        return OperationPageDone(after=until)

    @activity.defn(name="set_variables_page")
    async def set_variables_page(self, page: OperationPage) -> OperationPageDone:
        """The next page's runs hold the operation's variables, their workflows will be told of the names, and each result is on record:
        all in one transaction, which makes it safe to run twice."""
        async with heartbeating():
            ref = page.operation
            async with self.database.organization(ref.organization_id) as session:
                operation = await run_operations.get(session, ref.operation_id, lock=True)  # as its cancellation: before the audit chain
                items, until = await next_page(session, operation, page.after)
                if not items:
                    return OperationPageDone()
                wanted = VariableChange(
                    operation.arguments["variables"], Actor.of(operation.actor_kind, operation.executed_by), operation.reason, operation.id
                )
                found = await run_variables.change(session, [item.run_id for item in items], wanted)
                results = [Settled(run_id, "unchanged" if why else "done", why) for run_id, why in found.items()]
                await run_operations.settle(session, ref.operation_id, results)
            await poke(self.temporal, ref.organization_id)
        return OperationPageDone(after=until)

    @activity.defn(name="finish_operation")
    async def finish_operation(self, end: OperationEnd) -> OperationProgress:
        """The operation is marked completed when every run of it is settled. Safe to run twice: it is marked once."""
        ref = end.operation
        async with heartbeating(), self.database.organization(ref.organization_id) as session:
            give_up = "no_workflow" if end.last else None
            return OperationProgress(finished=await run_operations.finish(session, ref.operation_id, give_up=give_up))


async def next_page(session: OrganizationSession, operation: RunOperation, after: int) -> tuple[list[Item], int]:
    """The runs of the next page that are not settled, and the page's last position. Pages are the same in every pass: a word that is
    said again is the same word. Nobody where nothing is left, or the operation was cancelled."""
    first = None if operation.cancelled_at is not None else await run_operations.first_pending(session, operation.id, after)
    if first is None:
        return [], after
    until = -(-first // RUNS_AT_ONCE) * RUNS_AT_ONCE
    return await run_operations.pending(session, operation.id, until - RUNS_AT_ONCE, until), until


async def _tell(updates: Updates, operation: RunOperation, until: int, name: str, items: Sequence[Item]) -> list[Settled]:
    """What each of the workflow's runs answered; nothing of those that have to be asked again."""
    settled = {item.run_id: Settled(item.run_id, "unchanged", why, item.status) for item in items if (why := _why_not(operation, item))}
    told = [item for item in items if item.run_id not in settled]
    if told:
        answers = await updates.ask(name, CONTROL_RUNS, _word(operation, told), f"{operation.id}/{until}", list[RunControlled])
        settled |= {answer.run_id: _settled(answer) for answer in answers or ()}  # also of those that have heard it in an earlier pass
    return list(settled.values())


def _why_not(operation: RunOperation, item: Item) -> str | None:
    """Why the run is not told. A workflow that has taken it over since would obey a word that was heard, or meant, before the pause."""
    if item.finished:
        return "finished"
    return PAUSED_AGAIN if operation.command == "resume" and item.paused_since else None


def _by_workflow(items: Sequence[Item]) -> Mapping[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        found[item.workflow_id].append(item)
    return found


async def _settle_lost(session: OrganizationSession, operation: RunOperation, run_ids: Sequence[UUID]) -> None:
    """Safe to run twice: a run is cancelled once. One that is not lost any more, because it was replayed or ended, is looked at anew in
    the next pass."""
    if not run_ids:
        return
    lost = await lost_runs.lock(session, run_ids)
    if operation.command != "cancel":
        await run_operations.settle(session, operation.id, [Settled(run.id, "failed", LOST, run.status) for run in lost])
        return
    await run_operations.settle(session, operation.id, [Settled(run.id, "done", status=str(Phase.CANCELLED)) for run in lost])
    await lost_runs.end(session, lost, Actor.of(operation.actor_kind, operation.executed_by), operation.reason, operation.id)


Command = Literal["pause", "resume", "cancel", "retry", "skip", "jump"]


def _word(operation: RunOperation, items: Sequence[Item]) -> RunControl:
    bound = OPERATIONS[operation.command].bound_to_step
    places = {str(item.run_id): Place(step_id=item.step_id, visit=item.visit) for item in items if item.step_id} if bound else {}
    return RunControl(
        command=cast(Command, operation.command),
        run_ids=[item.run_id for item in items],
        actor_kind=operation.actor_kind or "system",
        actor_id=operation.executed_by,
        reason=operation.reason,
        places=places,
        to_step=operation.arguments.get("to_step"),
        operation_id=operation.id,
    )


def _settled(answer: RunControlled) -> Settled:
    result = "done" if answer.changed else "unchanged"
    return Settled(answer.run_id, result, None if answer.changed else answer.why or "already", answer.phase)
