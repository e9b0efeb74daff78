"""Pause, resume and cancel for every run of a campaign or a journey; and word that a connection works again."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from activities.contracts.control import Control, ControlledKind, ControlPage, ControlTargets, WorkflowPage
from activities.contracts.journey import RunMessage, RunMessages
from activities.heartbeat import heartbeating
from activities.missed_words import tell_later
from activities.poking import poke
from activities.signals import SIGNALS_AT_ONCE, ignoring_absence, refuses_one, signal_all
from models.domain.audit import Actor, NewEntry
from models.domain.journey import workflow_id
from models.store import audit, brakes, controls, occurrences, resumptions
from models.store.audience import Spread
from models.store.resumptions import LeftOut
from models.store.session import Database, OrganizationSession
from models.tables.base import utc_now

WORKFLOWS_PER_PAGE = 200


class ControlActivities:
    def __init__(self, database: Database, temporal: Client) -> None:
        self.database = database
        self.temporal = temporal

    def methods(self) -> list[Callable[..., Any]]:
        return [self.apply_control, self.controlled_workflows, self.signal_workflows]

    @activity.defn(name="apply_control")
    async def apply_control(self, control: Control) -> bool:
        """The flag on the campaign or journey is as commanded: from now on the last check before a send obeys it.

        Safe to run twice: a flag that stands already is left alone, without another audit entry.
        """
        actor = Actor.of(control.actor_kind, control.actor_id)
        async with heartbeating():
            async with self.database.organization(control.organization_id) as session:
                if control.braking_id is not None and (await brakes.get(session, control.braking_id)).lifted_at is not None:
                    return False  # it was resumed before this word came
                recurs = await controls.recurs(session, control.kind.value, control.id)
                left_out = await _leave_out(session, control)
                spread = None if control.spread is None else Spread(utc_now(), control.spread, control.request_id)
                in_force = await controls.apply(session, control.kind.value, control.id, control.command, actor, control.pauses, spread)
                if (
                    left_out is not None
                ):  # from here on: whoever lets contacts enter holds the journey's row, and waits for theirs, and the chain
                    left_out |= await _refuse_entries(session, control)
                    await audit.append(session, [_on_record(control, left_out)])
            if recurs and in_force:
                await self._tell_schedule(control)
            if in_force and (control.kind, control.command) == (ControlledKind.JOURNEY, "resume"):
                await poke(self.temporal, control.organization_id)  # who was to enter meanwhile enters now
        return in_force

    async def _tell_schedule(self, control: Control) -> None:
        """A recurring campaign's Temporal schedule ends with it. A pause leaves it alone: the day's occurrences are made all the same, and
        held. One that is not there (yet, or any more) does no harm: an occurrence asks the campaign's row first."""
        schedule = self.temporal.get_schedule_handle(workflow_id.campaign(control.organization_id, control.id))
        with ignoring_absence():
            match control.command:
                case "resume":
                    await schedule.unpause(note="the campaign is resumed")  # earlier releases paused it
                case "cancel":
                    await schedule.delete()
        if control.command == "resume":
            async with self.database.organization(control.organization_id) as session:
                await audit.append(session, await occurrences.complete_if_over(session, control.id, utc_now()))

    @activity.defn(name="controlled_workflows")
    async def controlled_workflows(self, page: ControlPage) -> WorkflowPage:
        """The next page of workflows that carry unfinished runs of the campaign or journey, or runs held for the connection. Reads only."""
        control = page.control
        async with heartbeating(), self.database.organization(control.organization_id) as session:
            found = await controls.concerned_workflows(
                session, control.kind.value, control.id, page.after, WORKFLOWS_PER_PAGE, control.command
            )
        return WorkflowPage(workflow_ids=found, after=found[-1] if len(found) == WORKFLOWS_PER_PAGE else None)

    @activity.defn(name="signal_workflows")
    async def signal_workflows(self, targets: ControlTargets) -> None:
        """Each workflow has been told; by a resumption that leaves some out, of those first. One for which Temporal takes nothing now holds
        up no other, and no later word: the outbox tells it what is in force then. Safe to run twice: a command that is in force
        already changes nothing."""
        async with heartbeating():
            if _leaves_out(targets.control):
                await self._tell_leaving(targets)
            refused = await signal_all(self.temporal, targets.control, targets.workflow_ids)
            await tell_later(self.database, targets.control.organization_id, refused)

    async def _tell_leaving(self, targets: ControlTargets) -> None:
        """The outbox tells them, too, but perhaps after the workflow has heard that it may go on."""
        async with self.database.organization(targets.control.organization_id) as session:
            leaving = await resumptions.to_tell(session, targets.workflow_ids)
        limit = asyncio.Semaphore(SIGNALS_AT_ONCE)

        async def tell(name: str, runs: Sequence[tuple[UUID, str]]) -> None:
            messages = [RunMessage(run_id=run_id, kind="exit", reason=reason) for run_id, reason in runs]
            async with limit:
                try:
                    with ignoring_absence():
                        await self.temporal.get_workflow_handle(name).signal("tell", RunMessages(messages=messages))
                except RPCError as error:
                    if not refuses_one(error, name):
                        raise

        await asyncio.gather(*(tell(name, runs) for name, runs in leaving.items()))


def _leaves_out(control: Control) -> bool:
    return control.command == "resume" and (control.drop_older_than is not None or control.recheck_entry)


async def _leave_out(session: OrganizationSession, control: Control) -> dict[str, int] | None:
    """In the transaction that lifts the pause, and only if it does: who is not to go on is marked so. Once: afterwards nothing is
    paused, and runs that are overdue then are so for other reasons. Answers how many, by reason; None: it leaves nobody out."""
    if not _leaves_out(control) or control.kind is ControlledKind.CONNECTION:
        return None
    kind: Literal["journey", "campaign"] = "journey" if control.kind is ControlledKind.JOURNEY else "campaign"
    since = await resumptions.paused_at(session, kind, control.id, control.pauses)
    if since is None:
        return None
    wanted = LeftOut(control.drop_older_than, control.recheck_entry)
    return await resumptions.leave_out(session, kind, control.id, wanted, since, utc_now())


async def _refuse_entries(session: OrganizationSession, control: Control) -> dict[str, int]:
    """Likewise those who waited for the end of the journey's pause to enter it, and do not fit any more."""
    if not control.recheck_entry or control.kind is not ControlledKind.JOURNEY:
        return {}
    refused = await resumptions.refuse_unfit_entries(session, control.id, utc_now())
    return {"entries_no_longer_fit": refused} if refused else {}


def _on_record(control: Control, left_out: Mapping[str, int]) -> NewEntry:
    kind, actor = control.kind.value, Actor.of(control.actor_kind, control.actor_id)
    return NewEntry(f"{kind}.runs_left_out", kind, str(control.id), actor, dict(left_out))
