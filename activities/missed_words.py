"""What operators say while a workflow starts: too late for its input, too early for a signal."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from temporalio.client import Client
from temporalio.service import RPCError

from activities.contracts.control import Control, ControlledKind
from activities.contracts.journey import RunMessage, RunMessages
from activities.contracts.payload import Scope
from activities.signals import ignoring_absence, refuses_one, signal_all
from models.store import handovers, outbox
from models.store.audience import Flags
from models.store.handovers import Subject
from models.store.outbox import OutboxMessage
from models.store.session import Database


@dataclass(frozen=True)
class Known:
    """What a workflow that carries runs of this scope knows of the flags. None: an earlier attempt started it, and it may have missed
    anything."""

    scope: Scope
    flags: Flags | None


async def tell_missed_words(temporal: Client, database: Database, organization_id: UUID, known: Mapping[str, Known]) -> list[str]:
    """The workflows, by their ids, know the flags as they are, but for those that are answered, as by `signal_all`. Looks again after
    telling: what was told may have been taken back meanwhile, and that word may have come first. Safe to run twice.

    Raises:
        RPCError: Temporal is away.
    """
    refused: list[str] = []
    while known:
        async with database.organization(organization_id) as session:
            now = await handovers.in_force(session, {name: _subject(each.scope) for name, each in known.items()})
        alike: defaultdict[tuple[Subject, Flags | None, Flags], list[str]] = defaultdict(list)
        for name, each in known.items():
            alike[_subject(each.scope), each.flags, now[name]].append(name)
        told: dict[str, Known] = {}
        for (_, before, after), names in alike.items():
            scope = known[names[0]].scope
            for word in words_between(scope, before, after):
                refused += await signal_all(temporal, word, [name for name in names if name not in refused])
                told |= {name: Known(scope, after) for name in names if name not in refused}
        known = {name: each for name, each in told.items() if name not in refused}
    return refused


async def tell_later(database: Database, organization_id: UUID, refused: Sequence[str]) -> None:
    """The outbox tells these workflows what is in force, as soon as Temporal takes anything for them."""
    if refused:
        async with database.organization(organization_id) as session:
            await outbox.tell_later(session, refused)


async def tell_exits(temporal: Client, database: Database, organization_id: UUID, name: str, run_ids: Sequence[UUID]) -> None:
    """Of the workflow's runs, who is to leave by a rule of the journey has been told so, or will be by the outbox, where Temporal takes
    nothing for it now. Heard twice, it changes nothing.

    Raises:
        RPCError: Temporal is away.
    """
    async with database.organization(organization_id) as session:
        leaving = await handovers.exits(session, run_ids)
    if leaving:
        messages = [RunMessage(run_id=run_id, kind="exit", reason=reason) for run_id, reason in leaving.items()]
        try:
            with ignoring_absence():  # it may have ended already
                await temporal.get_workflow_handle(name).signal("tell", RunMessages(messages=messages))
        except RPCError as error:
            if not refuses_one(error, name):
                raise
            async with database.organization(organization_id) as session:
                await outbox.add(session, [OutboxMessage(run_id, "exit", {"reason": reason}) for run_id, reason in leaving.items()])


def words_between(scope: Scope, before: Flags | None, after: Flags) -> list[Control]:
    """What a workflow that knows the flags as they were is told; None: all there is to say, a pause's being over included, for a resume
    that was missed would leave its runs held for ever."""
    if before is None and after.cancelled:
        return [_cancel(scope)]  # whether they were held does not matter any more
    words = []
    for kind, subject_id in ((ControlledKind.JOURNEY, scope.journey_id), (ControlledKind.CAMPAIGN, scope.campaign_id)):
        if subject_id is None:
            continue
        if before is None or (kind in before.held_by) != (kind in after.held_by):
            command = "pause" if kind in after.held_by else "resume"
            word = Control(organization_id=scope.organization_id, kind=kind, id=subject_id, command=command)
            words.append(_spread(word, after) if command == "resume" else word)
    if after.cancelled and not (before is not None and before.cancelled):
        words.append(_cancel(scope))
    return words


def _spread(resume: Control, flags: Flags) -> Control:
    """Each run goes on at the moment that the resumption gave it, however late it hears of it."""
    for kind, spread in flags.spreads:
        if kind == resume.kind:
            return resume.model_copy(update={"spread": spread.over, "request_id": spread.request_id, "said_at": spread.at})
    return resume


def _cancel(scope: Scope) -> Control:
    """Of runs outside campaigns the journey was cancelled."""
    if scope.campaign_id is not None:
        return Control(organization_id=scope.organization_id, kind=ControlledKind.CAMPAIGN, id=scope.campaign_id, command="cancel")
    kind = ControlledKind.JOURNEY
    return Control(organization_id=scope.organization_id, kind=kind, id=scope.journey_id, command="cancel", reason="journey_cancelled")


def _subject(scope: Scope) -> Subject:
    return scope.journey_id, scope.campaign_id
