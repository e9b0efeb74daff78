"""What operators say while a workflow starts: too late for its input, too early for a signal."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from temporalio.client import Client

from activities.contracts.control import Control, ControlledKind
from activities.contracts.journey import RunMessage, RunMessages
from activities.contracts.payload import Scope
from activities.signals import ignoring_absence, signal_all
from models.store import handovers
from models.store.audience import Flags
from models.store.session import Database

Subject = tuple[UUID, UUID | None]  # journey and campaign


@dataclass(frozen=True)
class Known:
    """What a workflow that carries runs of this scope knows of the flags. None: an earlier attempt started it, and it may have missed
    anything."""

    scope: Scope
    flags: Flags | None


async def tell_missed_words(temporal: Client, database: Database, organization_id: UUID, known: Mapping[str, Known]) -> None:
    """The workflows, by their ids, know the flags as they are. Looks again after telling: what was told may have been taken back
    meanwhile, and that word may have come first. Safe to run twice.

    Raises:
        RPCError: Temporal is away.
    """
    while known:
        now = await _in_force(database, organization_id, {_subject(each.scope) for each in known.values()})
        alike: defaultdict[tuple[Subject, Flags | None], list[str]] = defaultdict(list)
        for name, each in known.items():
            alike[_subject(each.scope), each.flags].append(name)
        told: dict[str, Known] = {}
        for (subject, before), names in alike.items():
            scope, after = known[names[0]].scope, now[subject]
            for word in words_between(scope, before, after):
                await signal_all(temporal, word, names)
                told |= {name: Known(scope, after) for name in names}
        known = told


async def tell_exits(temporal: Client, database: Database, organization_id: UUID, name: str, run_ids: Sequence[UUID]) -> None:
    """Of the workflow's runs, who is to leave by a rule of the journey has been told so. Heard twice, it changes nothing.

    Raises:
        RPCError: Temporal is away.
    """
    async with database.organization(organization_id) as session:
        leaving = await handovers.exits(session, run_ids)
    if leaving:
        messages = [RunMessage(run_id=run_id, kind="exit", reason=reason) for run_id, reason in leaving.items()]
        with ignoring_absence():  # it may have ended already
            await temporal.get_workflow_handle(name).signal("tell", RunMessages(messages=messages))


def words_between(scope: Scope, before: Flags | None, after: Flags) -> list[Control]:
    """What a workflow that knows the flags as they were is told; None: all there is to say, a pause's being over included, for a resume
    that was missed would leave its runs held for ever."""
    words = []
    for kind, subject_id in ((ControlledKind.JOURNEY, scope.journey_id), (ControlledKind.CAMPAIGN, scope.campaign_id)):
        if subject_id is None:
            continue
        if before is None or (kind in before.held_by) != (kind in after.held_by):
            command = "pause" if kind in after.held_by else "resume"
            words.append(Control(organization_id=scope.organization_id, kind=kind, id=subject_id, command=command))
        if kind is ControlledKind.CAMPAIGN and after.cancelled and not (before is not None and before.cancelled):
            words.append(Control(organization_id=scope.organization_id, kind=kind, id=subject_id, command="cancel"))
    return words


def _subject(scope: Scope) -> Subject:
    return scope.journey_id, scope.campaign_id


async def _in_force(database: Database, organization_id: UUID, subjects: set[Subject]) -> dict[Subject, Flags]:
    async with database.organization(organization_id) as session:
        return {subject: await handovers.flags(session, *subject) for subject in subjects}
