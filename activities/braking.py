"""What follows when a journey or campaign was paused because too much of it failed: its runs are told, and somebody is."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from temporalio import activity
from temporalio.client import Client

from activities.contracts.braking import BRAKING_WORKFLOW, BrakingNotice, BrakingRef
from activities.contracts.control import Control, ControlledKind
from activities.contracts.sending import SendOutcome
from activities.heartbeat import heartbeating
from activities.lines import CONNECTION_CHANGED, Lines, is_current, send_guarded
from activities.message import mail_from
from activities.providers.port import OutgoingEmail, ProviderAnswer
from activities.starting import attributes, say_control, start_once
from activities.ways import Ways
from models.domain.audit import NewEntry
from models.domain.back_off import doubled
from models.domain.journey import workflow_id
from models.domain.journey.brake import braking_words
from models.rendering import Rendered
from models.settings import Settings
from models.store import audit, brakes, campaigns, connections, journeys
from models.store.brakes import Responsible
from models.store.connections import SendingConnection
from models.store.session import Database, OrganizationSession
from models.tables.base import utc_now
from models.tables.failures import Braking

log = logging.getLogger(__name__)

HORIZON = timedelta(seconds=20)  # how far away the connection's next slot may be, to be waited for here
FIRST_TRY, LONGEST_TRY = timedelta(minutes=1), timedelta(hours=6)  # between mails that could not leave; doubled in between
MOST_TRIES = 24  # about four days
ADDRESS_IS_WRONG = (SendOutcome.RECIPIENT_PERMANENT, SendOutcome.OPTED_OUT)


Tell = Callable[[UUID, Sequence[UUID]], Coroutine[Any, Any, None]]
"""Told of an organization's new brakings by their ids, once they are committed. Never raises."""


async def left_to_upkeep(organization_id: UUID, braking_ids: Sequence[UUID]) -> None:
    """Where no Temporal is at hand. Nothing leaves meanwhile: the flag stands, and upkeep starts what is missing."""


class BrakingStarter:
    """Starts the workflow of new brakings. Never raises: upkeep starts what could not be."""

    def __init__(self, temporal: Client, task_queue: str) -> None:
        self.temporal = temporal
        self.task_queue = task_queue

    async def __call__(self, organization_id: UUID, braking_ids: Sequence[UUID]) -> None:
        for braking_id in braking_ids:
            try:
                await self._start(BrakingRef(organization_id=organization_id, braking_id=braking_id))
            except Exception as error:
                log.warning("a braking's workflow could not be started", extra={"error": type(error).__name__})

    async def _start(self, braking: BrakingRef) -> None:
        name = workflow_id.braking(braking.organization_id, braking.braking_id)
        await start_once(self.temporal, self.task_queue, BRAKING_WORKFLOW, braking, name, attributes(braking.organization_id))


class BrakingActivities:
    """`lines` are those of every activity of the process: a connection's limit holds for all of them together."""

    def __init__(self, database: Database, settings: Settings, temporal: Client, lines: Lines) -> None:
        self.database = database
        self.temporal = temporal
        self.settings = settings
        self.lines = lines
        self.ways = Ways(database, settings)

    def methods(self) -> list[Callable[..., Any]]:
        return [self.hold_braked, self.notify_of_braking]

    @activity.defn(name="hold_braked")
    async def hold_braked(self, braking: BrakingRef) -> None:
        """The control workflow of what was braked has heard that its runs pause, unless it has been resumed.

        Safe to run twice: the word bears the braking's id, and is not obeyed once that is lifted.
        """
        async with heartbeating():
            async with self.database.organization(braking.organization_id) as session:
                row = await brakes.get(session, braking.braking_id)
            if row.lifted_at is None:
                await self._say(row)

    async def _say(self, row: Braking) -> None:
        kind = ControlledKind(row.subject_kind)
        word = Control(
            organization_id=row.organization_id,
            kind=kind,
            id=row.subject_id,
            command="pause",
            reason=row.reason,
            request_id=row.id,
            braking_id=row.id,
        )
        campaign_id = row.subject_id if kind is ControlledKind.CAMPAIGN else None
        found_by = attributes(row.organization_id, row.journey_id, campaign_id=campaign_id)
        await say_control(self.temporal, self.settings.task_queue, word, found_by)

    @activity.defn(name="notify_of_braking")
    async def notify_of_braking(self, braking: BrakingRef) -> BrakingNotice:
        """The first of those responsible who can be told has a mail about it, or that is to be tried again later.

        Safe to run twice: the row says `transmitting` before a server could accept a mail, and whoever finds it so makes it `unknown`
        and writes nothing. So a worker that dies between the server's yes and our record leaves a doubt, never a second mail.
        """
        async with heartbeating():
            notice = await self._prepare(braking)
            if isinstance(notice, BrakingNotice):
                return notice
            answer = await self._send(notice)
            return await self._conclude(braking, notice, answer)

    async def _prepare(self, braking: BrakingRef) -> "BrakingNotice | _Notice":
        """What is to be sent, or that nothing is (now)."""
        async with self.database.organization(braking.organization_id) as session:
            row = await brakes.get(session, braking.braking_id, lock=True)
            if row.finished_at is not None:
                return BrakingNotice()
            if row.lifted_at is not None or row.notice == "transmitting":
                return await _close(session, row, "lifted" if row.notice == "waiting" else "unknown")
            people = [one for one in await brakes.responsible(session, row) if str(one.user_id) not in row.unreachable]
            if not people or braking.tries >= MOST_TRIES:
                return await _close(session, row, "nobody")
            way = await self.ways.way(session, None, "email")
            name = await _name(session, row)
        if way.connection is None or way.trouble is not None:
            return _later(braking)
        await self.ways.mend([way])
        return _Notice(row, people[0], way.connection, name)

    async def _send(self, notice: "_Notice") -> ProviderAnswer:
        async with self.database.organization(notice.row.organization_id) as session:
            slots = await connections.reserve_slots(session, notice.connection.id, 1, HORIZON)
        if not slots.delays:
            return ProviderAnswer(SendOutcome.THROTTLED)
        await asyncio.sleep(slots.delays[0])
        if not await is_current(self.database, notice.connection):
            return ProviderAnswer(SendOutcome.THROTTLED, CONNECTION_CHANGED)
        line = await self.lines.line(notice.connection)
        async with line.places:
            return await send_guarded(line, _mail(notice, self.settings.public_url), _Gate(self.database, notice.row))

    async def _conclude(self, braking: BrakingRef, notice: "_Notice", answer: ProviderAnswer) -> BrakingNotice:
        async with self.database.organization(braking.organization_id) as session:
            row = await brakes.get(session, braking.braking_id, lock=True)
            match answer.outcome:
                case SendOutcome.ACCEPTED:
                    row.notified_user_id = notice.person.user_id
                    return await _close(session, row, "told", {"user_id": str(notice.person.user_id), "as": notice.person.role})
                case SendOutcome.UNKNOWN:
                    return await _close(session, row, "unknown", {"user_id": str(notice.person.user_id), "as": notice.person.role})
                case outcome if outcome in ADDRESS_IS_WRONG:  # the next one, now
                    row.notice, row.unreachable = "waiting", [*row.unreachable, str(notice.person.user_id)]
                    return BrakingNotice(look_at=braking.now or utc_now())
                case _:
                    row.notice = "waiting"
                    return _later(braking)


@dataclass(frozen=True)
class _Notice:
    """One mail about one braking."""

    row: Braking
    person: Responsible
    connection: SendingConnection
    name: str  # of the journey or campaign


@dataclass
class _Gate:
    database: Database
    row: Braking
    passed: bool = False

    async def transmit(self) -> bool:
        before, self.passed = "transmitting" if self.passed else "waiting", False
        async with self.database.organization(self.row.organization_id) as session:
            row = await brakes.get(session, self.row.id, lock=True)
            allowed = row.notice == before and row.lifted_at is None
            if allowed:
                row.notice = "transmitting"
        self.passed = allowed  # committed
        return self.passed


def _later(braking: BrakingRef) -> BrakingNotice:
    return BrakingNotice(look_at=(braking.now or utc_now()) + doubled(FIRST_TRY, braking.tries, LONGEST_TRY))


async def _close(session: OrganizationSession, row: Braking, notice: str, details: Mapping[str, Any] | None = None) -> BrakingNotice:
    """Somebody was told, or nobody will be. Ends with the audit chain: call it last in a transaction."""
    row.notice, row.finished_at = notice, utc_now()
    await session.flush()
    about = {"braking_id": str(row.id), "notice": notice, **(details or {})}
    await audit.append(session, [NewEntry(f"{row.subject_kind}.braking_notified", row.subject_kind, str(row.subject_id), details=about)])
    return BrakingNotice()


async def _name(session: OrganizationSession, row: Braking) -> str:
    if row.subject_kind == "campaign":
        return (await campaigns.get(session, row.subject_id)).name
    return (await journeys.get(session, row.subject_id)).name


def _mail(notice: _Notice, public_url: str) -> OutgoingEmail:
    """Its id is the same for every try at the same person."""
    row = notice.row
    what = f'The {row.subject_kind} "{notice.name}"'
    said = Rendered(
        subject=f"Paused: {' '.join(notice.name.split())}",
        html="",
        text=f"{what} was paused by itself: {braking_words(row.reason, row.facts)}.\n\n"
        "Nothing of it is sent until somebody resumes it; nobody's place in it is lost.\n\n"
        f"What failed: {public_url}/v1/failures?journey_id={row.journey_id}\n"
        f"To resume: DELETE {public_url}/v1/{row.subject_kind}s/{row.subject_id}/pause\n\n"
        f"You are told as its {notice.person.role}.\n",
    )
    return mail_from(notice.connection, uuid5(row.id, str(notice.person.user_id)), notice.person.email, said, datetime.now(UTC))
