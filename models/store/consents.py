"""The consent ledger: what contacts agreed to, line by line. Nothing in it changes or goes away.

The current state of a contact, channel and topic is the line with the greatest (occurred_at, id).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from models.domain.audit import Actor, NewEntry
from models.store import audit
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.contacts import Consent, Contact

Status = Literal["granted", "withdrawn"]


@dataclass(frozen=True)
class NewConsent:
    """A line to be written. `occurred_at` (aware) is when the person said so, not when we heard of it; None: just now."""

    contact_id: UUID
    topic_id: UUID
    channel: str
    status: Status
    method: str
    source: str
    evidence: dict[str, Any]
    actor: Actor
    occurred_at: datetime | None


_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('consents/' || CAST(:o AS text), 0))")


async def write_alone(session: OrganizationSession) -> None:
    """What anybody else has written is on record for the next statement, and nobody else writes until this transaction ends. Take it before
    reading the ledger where what is written, or that nothing is, depends on that: a line that is not committed yet would come to be in
    force behind it. Held again and again at no cost.

    One lock for the organization: its writers wait for each other at the audit chain's head anyway, a moment later; and a file of 200,000
    contacts would need more locks than PostgreSQL has. Take it before that head, and after rows of runs and effects.
    """
    await session.execute(_ALONE, {"o": session.organization_id})


# What is said just now is dated by the one clock that all hosts share, and later than all that is on record about the same contact,
# channel and topic: some line may have come from a clock that is ahead, and would still be in force after somebody has left. Of what is
# said just now in one statement the withdrawals come last.
_WRITE = text(
    """
    WITH lines AS MATERIALIZED (
      SELECT a.*, max(a.said_at) OVER same AS stated, CAST(a.status = 'withdrawn' AS int) + row_number() OVER (
          PARTITION BY a.contact_id, a.channel, a.topic_id, a.said_at IS NULL ORDER BY a.status = 'withdrawn', a.position) AS turn
      FROM unnest(
        CAST(:ids AS uuid[]), CAST(:contact_ids AS uuid[]), CAST(:topic_ids AS uuid[]), CAST(:channels AS text[]),
        CAST(:statuses AS text[]), CAST(:methods AS text[]), CAST(:sources AS text[]), CAST(CAST(:evidence AS text[]) AS jsonb[]),
        CAST(:actor_kinds AS text[]), CAST(:actor_ids AS uuid[]), CAST(:times AS timestamptz[])) WITH ORDINALITY
        AS a(id, contact_id, topic_id, channel, status, method, source, evidence, actor_kind, actor_id, said_at, position)
      WINDOW same AS (PARTITION BY a.contact_id, a.channel, a.topic_id)),
    clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
    INSERT INTO consents (organization_id, created_at, id, contact_id, topic_id, channel, status, method, source, evidence,
                          actor_kind, actor_id, occurred_at)
    SELECT :o, now(), l.id, l.contact_id, l.topic_id, l.channel, l.status, l.method, l.source, l.evidence, l.actor_kind, l.actor_id,
      coalesce(l.said_at, l.turn * interval '1 microsecond' + greatest(clock.now, l.stated, (
        SELECT k.occurred_at FROM consents k WHERE k.organization_id = :o AND k.contact_id = l.contact_id AND k.channel = l.channel
          AND k.topic_id = l.topic_id ORDER BY k.occurred_at DESC LIMIT 1)))
    FROM lines l CROSS JOIN clock ORDER BY l.position
    """
)


async def record(session: OrganizationSession, lines: Sequence[NewConsent]) -> list[UUID]:
    """The lines stand in the ledger, each with its audit entry. Answers their ids, in order.

    One that says no time is in force at once, whatever is on record; of several such about the same, a withdrawal is. Transactions that
    write lines do so one after the other: the last word is the last.
    Locks the audit chain's head: call it last in a transaction. Contacts and topics must exist in the organization.
    """
    if not lines:
        return []
    await write_alone(session)
    ids = [new_id() for _ in lines]
    await session.execute(_WRITE, {"o": session.organization_id, "ids": ids} | _columns(lines))
    await audit.append(session, [_entry(identifier, line) for identifier, line in zip(ids, lines, strict=True)])
    return ids


def _columns(lines: Sequence[NewConsent]) -> dict[str, Any]:
    return {
        "contact_ids": [line.contact_id for line in lines],
        "topic_ids": [line.topic_id for line in lines],
        "channels": [line.channel for line in lines],
        "statuses": [line.status for line in lines],
        "methods": [line.method for line in lines],
        "sources": [line.source for line in lines],
        "evidence": [json.dumps(line.evidence) for line in lines],
        "actor_kinds": [line.actor.kind for line in lines],
        "actor_ids": [line.actor.id for line in lines],
        "times": [line.occurred_at for line in lines],
    }


def _entry(identifier: UUID, line: NewConsent) -> NewEntry:
    details = {"consent_id": str(identifier), "topic_id": str(line.topic_id), "channel": line.channel, "method": line.method}
    return NewEntry(f"consent.{line.status}", "contact", str(line.contact_id), line.actor, details)


@dataclass(frozen=True)
class Current:
    """What a contact's ledger says now about one topic and channel."""

    consent_id: UUID
    topic_id: UUID
    topic_key: str
    channel: str
    status: str
    method: str
    source: str
    occurred_at: datetime


_CURRENT = text(
    """
    SELECT DISTINCT ON (k.channel, k.topic_id) k.id, k.topic_id, t.key, k.channel, k.status, k.method, k.source, k.occurred_at
    FROM consents k JOIN topics t ON t.id = k.topic_id
    WHERE k.organization_id = :o AND k.contact_id = :contact_id
    ORDER BY k.channel, k.topic_id, k.occurred_at DESC, k.id DESC
    """
)


async def current(session: OrganizationSession, contact_id: UUID) -> list[Current]:
    """The contact's present consents, by channel and topic. Nothing for a topic about which nothing was ever said."""
    rows = await session.execute(_CURRENT, {"o": session.organization_id, "contact_id": contact_id})
    return [Current(*row) for row in rows]


async def list_lines(session: OrganizationSession, contact_id: UUID, limit: int, after: UUID | None = None) -> Sequence[Consent]:
    """At most `limit` lines of the contact's ledger, in the order they were written, after the id `after`."""
    query = select(Consent).where(col(Consent.organization_id) == session.organization_id, col(Consent.contact_id) == contact_id)
    if after is not None:
        query = query.where(col(Consent.id) > after)
    return (await session.scalars(query.order_by(col(Consent.id)).limit(limit))).all()


async def lines_by_id(session: OrganizationSession, ids: Sequence[UUID]) -> list[Consent]:
    """These lines, in the order of `ids`."""
    query = select(Consent).where(col(Consent.organization_id) == session.organization_id, col(Consent.id).in_(ids))
    found = {line.id: line for line in (await session.scalars(query)).all()}
    return [found[identifier] for identifier in ids]


async def missing_contacts(session: OrganizationSession, contact_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the ids that no contact of the organization has."""
    query = select(col(Contact.id)).where(col(Contact.organization_id) == session.organization_id, col(Contact.id).in_(set(contact_ids)))
    return set(contact_ids) - set((await session.scalars(query)).all())


@dataclass(frozen=True)
class Wish:
    """A run that is about to speak for its contact, about one topic and channel."""

    run_id: UUID
    contact_id: UUID
    topic_id: UUID
    channel: str


@dataclass(frozen=True)
class WishFacts:
    """What is known around a wish. `withdrawn_since`: since its run was to begin, the contact has withdrawn by another way than a
    journey's step, and has not granted by such a way after that. What steps have said meanwhile hides neither."""

    contact_exists: bool
    topic_archived: bool
    withdrawn_since: bool


# A run is to begin when what leads to it happens: its entry may be decided much later, while its journey is paused or its hour full. By
# the earliest of the clocks that say when.
_BEGAN = """(SELECT least(b.occurred_at, n.created_at, r.entered_at, r.created_at) FROM runs r
      LEFT JOIN events b ON b.organization_id = :o AND b.id = r.entry_event_id
      LEFT JOIN LATERAL (SELECT n.created_at FROM entries n WHERE n.organization_id = :o AND n.contact_id = r.contact_id
        AND n.run_id = coalesce(r.root_run_id, r.id) LIMIT 1) n ON true
      WHERE r.organization_id = :o AND r.id = a.run_id)"""
_WISHES = text(
    f"""
    SELECT a.run_id, c.id IS NOT NULL AS contact_exists, coalesce(t.archived_at IS NOT NULL, true) AS topic_archived,
           coalesce(k.status = 'withdrawn' AND k.occurred_at > {_BEGAN}, false) AS withdrawn_since
    FROM jsonb_to_recordset(CAST(:wishes AS jsonb)) AS a(run_id uuid, contact_id uuid, topic_id uuid, channel text)
    LEFT JOIN LATERAL (SELECT c.id FROM contacts c WHERE c.organization_id = :o AND c.id = a.contact_id LIMIT 1) c ON true
    LEFT JOIN topics t ON t.organization_id = :o AND t.id = a.topic_id
    LEFT JOIN LATERAL (
      SELECT k.status, k.occurred_at FROM consents k
      WHERE k.organization_id = :o AND k.contact_id = a.contact_id AND k.channel = a.channel AND k.topic_id = a.topic_id
        AND NOT (k.method = 'journey' AND k.actor_kind = 'system') -- a caller of the API may call its way so
      ORDER BY k.occurred_at DESC, k.id DESC LIMIT 1) k ON true
    """
)


async def load_wish_facts(session: OrganizationSession, wishes: Sequence[Wish]) -> dict[UUID, WishFacts]:
    """By run, and so until this transaction ends. One statement."""
    await write_alone(session)
    rows = await session.execute(_WISHES, {"o": session.organization_id, "wishes": rowset([vars(one) for one in wishes])})
    return {row.run_id: WishFacts(row.contact_exists, row.topic_archived, row.withdrawn_since) for row in rows}
