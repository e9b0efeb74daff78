"""Replays: what their workflows start with, and one page of a replay of many runs."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from activities.contracts.journey import JourneyInput
from activities.contracts.operations import OperationPage, OperationPageDone
from activities.contracts.payload import Scope
from activities.heartbeat import heartbeating
from activities.operations import next_page
from activities.poking import poke
from activities.versions import Versions
from models.domain.audit import Actor
from models.domain.journey.operations import WRONG_PHASE
from models.domain.journey.run import RunState
from models.store import audit, handovers, replay_plans, replays, run_operations, waits
from models.store.replay_plans import Plan, Refusal
from models.store.replays import Made, StartingWorkflow
from models.store.run_operations import Settled
from models.store.session import Database, OrganizationSession
from models.tables.operating import RunOperation

UNCHANGED = ("replayed_already", "not_over", "run_left", "run_cancelled")  # what a run is like that somebody else was faster with


async def replay_inputs(session: OrganizationSession, versions: Versions, names: Sequence[str]) -> dict[str, JourneyInput]:
    """By workflow id, for those of `names` that carry replays which have recorded nothing: starting them, also again, is harmless.

    A replay of a paused journey or campaign starts held. Variables stay in the runs' rows, and payloads hold ids only.
    """
    starting = await replays.starting(session, names)
    inputs: dict[str, JourneyInput] = {}
    for each in starting:
        said = await handovers.flags(session, each.journey_id, each.campaign_id)
        inputs[each.name] = JourneyInput(
            scope=_scope(session, each),
            definition=await versions.definition(session, each.version_id),
            runs=_states(each),
            held_by=sorted(said.held_by),
            cancelled=said.cancelled or all(run.cancelled for run in each.runs),
        )
    return inputs


def _scope(session: OrganizationSession, starting: StartingWorkflow) -> Scope:
    return Scope(
        organization_id=session.organization_id,
        journey_id=starting.journey_id,
        version_id=starting.version_id,
        campaign_id=starting.campaign_id,
        on_error=starting.on_error,
        replay=True,
    )


def _states(starting: StartingWorkflow) -> list[RunState]:
    return [
        RunState(
            run_id=run.id,
            contact_id=run.contact_id,
            step_id=run.step_id,
            visits=dict(run.begun.visits),
            visits_before=run.begun.visits_before,
            skips=run.begun.skips,
            paused=run.paused,
            leaving="journey_cancelled" if run.cancelled else run.leaving,
        )
        for run in starting.runs
    ]


class ReplayActivities:
    def __init__(self, database: Database, temporal: Client) -> None:
        self.database = database
        self.temporal = temporal

    def methods(self) -> list[Callable[..., Any]]:
        return [self.replay_page]

    @activity.defn(name="replay_page")
    async def replay_page(self, page: OperationPage) -> OperationPageDone:
        """The next page's runs are replayed by new runs, and what became of each is on record: one transaction. One that is not in a
        status which the operation is about any more (it left by a rule, or somebody ended it, after it was taken) is left alone.

        Safe to run twice: only runs that are not settled are looked at, and a run is replayed once, whoever asks. Their workflows are
        started by the outbox.
        """
        ref = page.operation
        async with heartbeating():
            async with self.database.organization(ref.organization_id) as session:
                await waits.routing_lock(session, alone=False)
                operation = await run_operations.get(session, ref.operation_id)
                items, until = await next_page(session, operation, page.after)
                if not items:
                    return OperationPageDone()
                await self._replay(session, operation, [item.run_id for item in items])
            with suppress(RPCError):  # upkeep asks again within a minute
                await poke(self.temporal, ref.organization_id)
        return OperationPageDone(after=until)

    async def _replay(self, session: OrganizationSession, operation: RunOperation, run_ids: Sequence[UUID]) -> None:
        wanted = replay_plans.wanted_of(operation.arguments, operation.reason or "", run_operations.versions_in(operation.preview))
        actor = Actor.of(operation.actor_kind, operation.executed_by)
        meant = run_operations.wanted_of(operation).selection.statuses
        locked = await replay_plans.load(session, run_ids, lock=True)
        olds = [old for old in locked if meant is None or old.status in meant]
        found = await replay_plans.plan(session, olds, wanted)
        plans = [each for each in found if isinstance(each, Plan)]
        made, entries = await replays.make(session, plans, wanted, actor)
        settled = [*_done(made), *(_refused(each) for each in found if isinstance(each, Refusal))]
        settled += [
            Settled(old.id, "unchanged", WRONG_PHASE, old.status) for old in locked if meant is not None and old.status not in meant
        ]
        await run_operations.settle(session, operation.id, settled)
        await audit.append(session, entries)  # last: locks the chain's head


def _done(made: Sequence[Made]) -> list[Settled]:
    return [Settled(one.old_id, "done", details={"replay_id": str(one.id)}) for one in made]


def _refused(refusal: Refusal) -> Settled:
    result = "unchanged" if refusal.code in UNCHANGED else "failed"
    return Settled(refusal.old.id, result, refusal.code, refusal.old.status)
