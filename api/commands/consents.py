"""Consents as requests state them: topics by key or id, checked before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from api.commands.routing import poke_if_listening
from api.dependencies import Caller
from models.domain.errors import Invalid, Problem
from models.domain.segment_values import at_zone
from models.store import consents, topics
from models.store.consents import NewConsent, Status
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.contacts import Consent

CLOCK_SKEW = timedelta(minutes=1)  # between a caller's clock and ours; a moment within it counts as now


@dataclass(frozen=True)
class StatedConsent:
    """One line as a request states it. `occurred_at` None: now."""

    contact_id: UUID
    topic_id: UUID | None
    topic: str | None
    channel: str
    status: Status
    method: str
    source: str
    evidence: dict[str, Any]
    occurred_at: datetime | None


async def record_consents(caller: Caller, stated: Sequence[StatedConsent], *, single: bool = False) -> list[Consent]:
    """All lines stand in the ledger, or none. Answers them in order.

    Raises:
        Invalid: a contact or topic does not exist, a topic is archived, or a moment lies in the future; the path starts
            with the line's number, counted from 0, unless `single` says that the caller gave no list.
    """
    now = utc_now()
    async with caller.session() as session:
        lines = await _resolve(session, caller, stated, now, single)
        ids = await consents.record(session, lines)
        recorded = await consents.lines_by_id(session, ids)
    await poke_if_listening(caller)
    return recorded


async def _resolve(
    session: OrganizationSession, caller: Caller, stated: Sequence[StatedConsent], now: datetime, single: bool
) -> list[NewConsent]:
    strangers = await consents.missing_contacts(session, [line.contact_id for line in stated])
    found = await topics.find(session, [line.topic for line in stated if line.topic], [line.topic_id for line in stated if line.topic_id])
    problems: list[Problem] = []
    lines: list[NewConsent] = []
    for index, line in enumerate(stated):
        topic = found.get(line.topic or line.topic_id)
        wrong = _check(line, now, line.contact_id in strangers, topic)
        prefix = "" if single else f"[{index}]."
        problems.extend(Problem(f"{prefix}{name}", code, message) for name, code, message in wrong)
        if topic is not None:
            lines.append(_line(caller, line, topic.id, _stated(line, now)))
    if problems:
        raise Invalid(problems)
    return lines


def _check(line: StatedConsent, now: datetime, stranger: bool, topic: topics.TopicRef | None) -> list[tuple[str, str, str]]:
    wrong = []
    name = "topic" if line.topic else "topic_id"
    if stranger:
        wrong.append(("contact_id", "unknown_contact", "There is no contact with this id."))
    if topic is None:
        wrong.append((name, "unknown_topic", "There is no such topic; GET /v1/topics lists them."))
    elif topic.archived and line.status == "granted":
        wrong.append((name, "archived_topic", "The topic is archived and takes no new consent."))
    if line.occurred_at is not None and line.occurred_at > now + CLOCK_SKEW:
        wrong.append(("occurred_at", "in_the_future", "Consent cannot be given in the future; leave occurred_at out for now."))
    return wrong


def _stated(line: StatedConsent, now: datetime) -> datetime | None:
    """When it was said, if the request says so."""
    return None if line.occurred_at is None or line.occurred_at >= now else at_zone(line.occurred_at, UTC)


def _line(caller: Caller, line: StatedConsent, topic_id: UUID, occurred_at: datetime | None) -> NewConsent:
    return NewConsent(
        contact_id=line.contact_id,
        topic_id=topic_id,
        channel=line.channel,
        status=line.status,
        method=line.method,
        source=line.source,
        evidence=line.evidence,
        actor=caller.actor,
        occurred_at=occurred_at,
    )
