"""Checking, publishing, pausing, cancelling and archiving journeys."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from activities.starting import attributes
from api.commands import cases
from api.commands.facts import facts_of as facts_of
from api.commands.pausing import Controlled, because, request_resume, tell_runs
from api.commands.routing import poke_if_listening
from api.commands.temporal import request_id
from api.commands.waking import wake
from api.dependencies import Caller
from models.domain.audit import NewEntry
from models.domain.errors import ApprovalRequired, Conflict, Problem, StaleRevision, Unpublishable
from models.domain.journey.check import check_definition, parse
from models.domain.journey.content_hash import content_hash, freeze, stored, template_version_ids
from models.domain.journey.definition import Definition
from models.domain.journey.resumption import AT_ONCE, Manner
from models.store import access, approvals, audit, campaigns, journey_versions, journeys, occurrences, runs, triggers
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.journeys import Journey, JourneyVersion


@dataclass(frozen=True)
class Published:
    """`created` is False when the newest version says the same already."""

    version: JourneyVersion
    created: bool


async def create_journey(caller: Caller, name: str, draft: dict[str, Any]) -> Journey:
    """A journey with this draft exists; it need not be publishable yet."""
    async with caller.session() as session:
        journey = await journeys.create(session, name, draft, caller.person)
        await _append(session, caller, "journey.created", journey.id)
    return journey


async def save_draft(caller: Caller, journey_id: UUID, revision: int, draft: dict[str, Any] | None, name: str | None) -> Journey:
    """The draft is saved over `revision`, which is the newest. Raises as `journeys.save_draft`."""
    async with caller.session() as session:
        journey = await journeys.save_draft(session, journey_id, revision, draft, name, caller.person)
        await _append(session, caller, "journey.draft_saved", journey_id, revision=journey.revision)
    return journey


async def check_draft(caller: Caller, journey_id: UUID) -> tuple[Journey, list[Problem]]:
    """The journey, and everything that keeps its draft from being published."""
    async with caller.session() as session:
        journey = await journeys.get(session, journey_id)
        definition = parse(journey.draft)
        if isinstance(definition, list):
            return journey, definition
        return journey, check_definition(definition, await facts_of(session, definition, journey_id))


async def publish(caller: Caller, journey_id: UUID, revision: int | None = None) -> Published:
    """The draft is frozen as the newest version, together with the template versions it names. Publishing what the newest
    version says already changes nothing. Publications of one journey wait for each other.

    Raises:
        NotFound, Conflict: no such journey, or it is archived.
        StaleRevision: the draft is not at `revision` (None: whichever it is at).
        Unpublishable: with everything that is wrong.
        CasesFailed, ApprovalRequired: as `publish_frozen`.
        Unavailable: as `listen_first`.
    """
    await listen_first(caller, journey_id)
    async with caller.session() as session:
        journey = await locked_draft(session, journey_id, revision)
        frozen, hash_ = await freeze_draft(session, journey)
        published = await publish_frozen(session, caller, journey, frozen, hash_)
    await poke_if_listening(caller)  # who fits its segments is taken down
    return published


async def listen_first(caller: Caller, journey_id: UUID) -> None:
    """Where the draft depends on how contacts change, their changes are noted before it is published. In a transaction of its own: it waits
    for whoever is changing contacts, and must keep nobody waiting for a journey meanwhile.

    Raises:
        NotFound: no such journey.
        Unavailable: as `triggers.listen`.
    """
    async with caller.session() as session:
        definition = parse((await journeys.get(session, journey_id)).draft)
        if not isinstance(definition, list) and triggers.listens(definition):
            await triggers.listen(session)


async def locked_draft(session: OrganizationSession, journey_id: UUID, revision: int | None) -> Journey:
    """The journey, whose draft nobody changes or publishes before this transaction ends.

    Raises:
        NotFound, Conflict: no such journey, or it is archived.
        StaleRevision: the draft is not at `revision` (None: whichever it is at).
    """
    journey = await journeys.get(session, journey_id, lock=True)
    if journey.archived_at is not None:
        raise Conflict("This journey is archived; nothing more can be published in it.")
    if revision is not None and revision != journey.revision:
        raise StaleRevision(f"The draft is at revision {journey.revision} by now, not {revision}; read it, and say it again.")
    return journey


async def publish_frozen(session: OrganizationSession, caller: Caller, journey: Journey, frozen: Definition, hash_: str) -> Published:
    """What `freeze_draft` gave is the newest version. The caller holds the journey's lock. Appends to the audit chain.

    Raises:
        CasesFailed: a case of the journey comes to something else than it expects.
        ApprovalRequired: the organization wants another person's approval of this content, and it is not there.
        Unavailable: its cases are too much work.
    """
    newest = await journey_versions.find_newest(session, journey.id)
    if newest is not None and newest.content_hash == hash_:
        return Published(newest, created=False)
    await cases.require_passing(session, caller.services.passing, journey.id, frozen)
    await _require_approval(session, journey.id, hash_)
    version = await journey_versions.add(session, journey, stored(frozen), hash_, caller.actor.id)
    await triggers.put_in_force(session, version, frozen)
    details = {"version_id": str(version.id), "number": version.number, "content_hash": hash_, "revision": journey.revision}
    await _append(session, caller, "journey.published", journey.id, **details)
    return Published(version, created=True)


async def _require_approval(session: OrganizationSession, journey_id: UUID, hash_: str) -> None:
    organization = await access.get_organization(session)
    if organization.approval_required and not await approvals.is_approved(session, journey_id, hash_):
        raise ApprovalRequired(
            "This organization publishes only what another person has approved, and exactly this content is not (any more): "
            "ask by POST /v1/journeys/{id}/approvals; any change of the draft, a template or a segment needs a new approval."
        )


async def freeze_draft(session: OrganizationSession, journey: Journey) -> tuple[Definition, str]:
    """The journey's draft as it would be published now, and its content hash.

    Raises:
        Unpublishable: with everything that is wrong.
    """
    definition = parse(journey.draft)
    if isinstance(definition, list):
        raise _unpublishable(definition)
    facts = await facts_of(session, definition, journey.id)
    if problems := check_definition(definition, facts):
        raise _unpublishable(problems)
    frozen = freeze(definition, facts)
    contents = await journey_versions.template_contents(session, template_version_ids(frozen))
    return frozen, content_hash(frozen, contents)


def _unpublishable(problems: list[Problem]) -> Unpublishable:
    return Unpublishable(problems, f"The draft has {len(problems)} problem{'s'[: len(problems) > 1]}; mend them and publish again.")


async def pause(caller: Caller, journey_id: UUID, reason: str | None, key: str | None) -> Journey:
    """Nothing of this journey is sent from now on: the flag stands before the answer, the runs are told by a workflow.
    Repeating is harmless.

    Raises:
        Unavailable: the flag stands, but the runs could not be told yet: repeat.
    """
    async with caller.session() as session:
        journey = await journeys.get(session, journey_id, lock=True)
        if journey.paused_at is None:
            journey = await journeys.set_paused(session, journey_id, datetime.now(UTC))
            await _append(session, caller, "journey.paused", journey_id, **because(reason))
        journey = await journeys.count_pause(session, journey_id)
    await tell_runs(caller, _controlled(journey), "pause", reason, key)
    return journey


async def resume(caller: Caller, journey_id: UUID, key: str | None, manner: Manner = AT_ONCE, reason: str | None = None) -> Journey:
    """A workflow lifts the pause, leaves out who is to be left out, and tells every run. Of a journey that is not paused nothing is asked.

    Raises:
        Invalid: the manner is out of range.
        Conflict: it is not paused (any more), so that nothing could be done in this manner, or another request is being obeyed.
        Unavailable: still paused: repeat.
    """
    manner.check()
    async with caller.session() as session:
        journey = await journeys.get(session, journey_id, lock=True)
        if not await request_resume(session, caller, _controlled(journey), key, manner, reason):
            return journey
    await tell_runs(caller, _controlled(journey), "resume", reason, key, manner)
    return journey


async def cancel(caller: Caller, journey_id: UUID, reason: str | None, key: str | None) -> Journey:
    """Every run of the journey that is under way ends, and its campaigns are cancelled: their flags stand before the answer, and from when
    on the others are, and the runs are told by a workflow. The journey stays as it is and can be entered again. Repeating is harmless.

    Raises:
        Unavailable: the flags stand, but the runs could not be told yet: repeat.
    """
    word = key or str(new_id())  # without a key never the same word as one before: others may have entered since
    async with caller.session() as session:
        journey = await journeys.get(session, journey_id, lock=True)
        journey = await journeys.cancel_runs(session, journey, request_id(word, caller.organization_id, caller.actor.id, journey_id))
        assert journey.runs_cancelled_at is not None
        await runs.cancel_unstarted(session, journey_id, journey.runs_cancelled_at)
        cancelled = [
            NewEntry("campaign.cancelled", "campaign", str(id), caller.actor, because(reason))
            for id in await campaigns.cancel_all(session, journey_id)
        ]
        asked = NewEntry("journey.cancellation_requested", "journey", str(journey_id), caller.actor, because(reason))
        await audit.append(session, [asked, *cancelled])
    await tell_runs(caller, _controlled(journey), "cancel", reason, word)
    return journey


def _controlled(journey: Journey) -> Controlled:
    found_by = attributes(journey.organization_id, journey.id)
    return Controlled("journey", journey.id, journey.paused_at, journey.pauses, found_by)


async def set_archived(caller: Caller, journey_id: UUID, archived: bool) -> Journey:
    """The journey is archived, or not. An archived one takes nothing new; runs under way go on. Campaigns that waited for it to be
    restored look at once whether they start.

    Raises:
        Unavailable: it is restored, but its campaigns could not be told yet: repeat, or they look within an hour by themselves.
    """
    async with caller.session() as session:
        journey = await journeys.get(session, journey_id, lock=True)
        if (journey.archived_at is not None) is not archived:
            journey = await journeys.set_archived(session, journey_id, datetime.now(UTC) if archived else None)
            if not archived:
                await occurrences.void_of_journey(session, journey_id)  # also what no worker has looked at meanwhile
            await _append(session, caller, "journey.archived" if archived else "journey.restored", journey_id)
    if not archived:
        await wake(caller, "restored", journey_id)  # also when it was not archived
    return journey


async def _append(session: OrganizationSession, caller: Caller, action: str, journey_id: UUID, **details: Any) -> None:
    await audit.append(session, [NewEntry(action, "journey", str(journey_id), caller.actor, details)])
