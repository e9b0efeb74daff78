"""Events: accepted once, in order, and matched later (`activities.routing`)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from models.domain.errors import NotFound
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.events import Event


@dataclass(frozen=True)
class NewEvent:
    """Exactly one of `contact_id`, `contact_external_id` and `email` (normalised) says whose it is."""

    external_id: str | None
    name: str
    contact_id: UUID | None
    contact_external_id: str | None
    email: str | None
    properties: Mapping[str, Any]
    hidden: bool
    occurred_at: datetime


@dataclass(frozen=True)
class Accepted:
    """`id` None: there is no such contact. `new` False: one with this external id was accepted before: that one's id and contact."""

    position: int
    id: UUID | None
    contact_id: UUID | None
    new: bool


# What has been accepted by now, as an SQL expression: events with a greater `seq` come later.
SO_FAR = "(SELECT coalesce(pg_sequence_last_value('events_seq_seq'), 0))"

_ASKED = """jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(position int, id uuid, external_id text, name text, contact_id uuid,
      contact_external_id text, email text, properties jsonb, hidden boolean, occurred_at timestamptz)"""
# In a fixed order: two requests that make the same contacts wait for each other and do not deadlock.
_MAKE_CONTACTS = text(
    f"""
    INSERT INTO contacts (id, organization_id, external_id, email, attributes, tags, created_at, updated_at)
    SELECT DISTINCT ON (a.contact_external_id, lower(a.email)) a.id, :o, a.contact_external_id, a.email, '{{}}', '{{}}', now(), now()
    FROM {_ASKED}
    WHERE (a.contact_external_id IS NOT NULL OR a.email IS NOT NULL)
      AND NOT EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :o AND c.external_id = a.contact_external_id)
      AND NOT EXISTS (SELECT 1 FROM contacts c WHERE c.organization_id = :o AND c.email_key = lower(a.email))
    ORDER BY a.contact_external_id, lower(a.email), a.position
    ON CONFLICT DO NOTHING
    """
)
# The order of the batch is the order of acceptance.
_ACCEPT = text(
    f"""
    WITH asked AS MATERIALIZED (
      SELECT a.*, coalesce(
          (SELECT c.id FROM contacts c WHERE c.organization_id = :o AND c.id = a.contact_id),
          (SELECT c.id FROM contacts c WHERE c.organization_id = :o AND c.external_id = a.contact_external_id),
          (SELECT c.id FROM contacts c WHERE c.organization_id = :o AND c.email_key = lower(a.email))) AS whose
      FROM {_ASKED}),
    inserted AS (
      INSERT INTO events (id, organization_id, created_at, external_id, name, contact_id, properties, hidden, occurred_at)
      SELECT f.id, :o, clock_timestamp(), f.external_id, f.name, f.whose, f.properties, f.hidden, f.occurred_at
      FROM asked f WHERE f.whose IS NOT NULL
      ORDER BY f.position
      ON CONFLICT DO NOTHING
      RETURNING id, external_id)
    SELECT a.position, a.whose, a.id, a.external_id, i.id IS NOT NULL AS new FROM asked a LEFT JOIN inserted i ON i.id = a.id
    ORDER BY a.position
    """
)
# A statement of its own: the next one sees what whoever held these has committed.
_CLAIM = text("SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(CAST(:names AS text[])) AS a(name)")
_KNOWN = text("SELECT external_id, id, contact_id FROM events WHERE organization_id = :o AND external_id = ANY(CAST(:ids AS text[]))")


async def accept(session: OrganizationSession, new: Sequence[NewEvent], *, make_contacts: bool) -> list[Accepted]:
    """The events are on record, in their order, once this transaction commits. Safe to repeat for those with an external id: a repeated
    one is answered as the first was, whatever else it says, and does nothing.

    With `make_contacts`, whoever is not known by external id or email becomes a contact (who has agreed to nothing).
    """
    rows = [{**vars(event), "position": position, "id": new_id()} for position, event in enumerate(new)]
    answers: dict[int, Accepted] = {}
    while rows:  # once more only for repetitions within the batch of what could not be accepted
        firsts = list({row["external_id"] or row["id"]: row for row in reversed(rows)}.values())[::-1]
        for accepted in await _accept(session, firsts, make_contacts):
            answers[accepted.position] = accepted
        by_id = {row["external_id"]: answers[row["position"]] for row in firsts}
        left = []
        for row in rows:
            if row["position"] not in answers:
                first = by_id[row["external_id"]]
                if first.id is None:
                    left.append(row)
                else:
                    answers[row["position"]] = Accepted(row["position"], first.id, first.contact_id, False)
        rows = left
    return [answers[position] for position in range(len(new))]


async def _accept(session: OrganizationSession, rows: Sequence[Mapping[str, Any]], make_contacts: bool) -> list[Accepted]:
    """As `accept`, where no external id occurs twice."""
    parameters = {"o": session.organization_id, "rows": rowset(rows)}
    found = {row.position: row for row in await session.execute(_ACCEPT, parameters)}
    known = await _known(session, found.values())
    strangers = {position: row for position, row in found.items() if row.whose is None and row.external_id not in known}
    if make_contacts and strangers:  # seldom, so it is not asked of every event; the later ones of a new contact come after the known ones'
        known |= await _claimed(session, strangers.values())
        wanted = [row for row in rows if row["position"] in strangers and row["external_id"] not in known]
        missing = {"o": session.organization_id, "rows": rowset(wanted)}
        await session.execute(_MAKE_CONTACTS, missing)
        made = {row.position: row for row in await session.execute(_ACCEPT, missing)}
        found |= made
        known |= await _known(session, made.values())
    return [_accepted(found[row["position"]], known) for row in rows]


async def _claimed(session: OrganizationSession, found: Iterable[Any]) -> dict[str, tuple[UUID, UUID]]:
    """As `_known`, and nobody else makes a contact for one of the others until this transaction ends: one that is sent twice at the same
    time, with another contact each, makes the contact of the one that comes first."""
    rows = [row for row in found if row.external_id is not None]
    names = [f"event/{session.organization_id}/{external_id}" for external_id in sorted({row.external_id for row in rows})]
    if not names:
        return {}
    await session.execute(_CLAIM, {"names": names})
    return await _known(session, rows)


async def _known(session: OrganizationSession, found: Iterable[Any]) -> dict[str, tuple[UUID, UUID]]:
    """The event and its contact, of each external id that was accepted before."""
    repeated = [row.external_id for row in found if not row.new and row.external_id is not None]
    if not repeated:
        return {}
    rows = await session.execute(_KNOWN, {"o": session.organization_id, "ids": repeated})
    return {row.external_id: (row.id, row.contact_id) for row in rows}


def _accepted(row: Any, known: Mapping[str, tuple[UUID, UUID]]) -> Accepted:
    if row.new:
        return Accepted(row.position, row.id, row.whose, True)
    event_id, contact_id = known.get(row.external_id or "", (None, None))
    return Accepted(row.position, event_id, contact_id, False)


async def page(
    session: OrganizationSession, limit: int, after: UUID | None, contact_id: UUID | None = None, name: str | None = None
) -> Sequence[Event]:
    """Up to `limit` events, oldest first, beginning after the id `after`."""
    statement = select(Event).where(col(Event.organization_id) == session.organization_id)
    for column, value in ((Event.contact_id, contact_id), (Event.name, name)):
        if value is not None:
            statement = statement.where(col(column) == value)
    if after is not None:
        statement = statement.where(col(Event.id) > after)
    return (await session.execute(statement.order_by(col(Event.id)).limit(limit))).scalars().all()


async def get(session: OrganizationSession, event_id: UUID) -> Event:
    """The event.

    Raises:
        NotFound: no such event in this organization.
    """
    statement = select(Event).where(col(Event.organization_id) == session.organization_id, col(Event.id) == event_id)
    found = (await session.execute(statement)).scalar_one_or_none()
    if found is None:
        raise NotFound("event", event_id)
    return found


@dataclass(frozen=True)
class Unrouted:
    id: UUID
    seq: int
    name: str
    contact_id: UUID


_UNROUTED = text(
    """
    SELECT id, seq, name, contact_id FROM events
    WHERE organization_id = :o AND routed_at IS NULL ORDER BY seq LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)
_ROUTED = text("UPDATE events SET routed_at = clock_timestamp() WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[]))")


async def unrouted(session: OrganizationSession, limit: int) -> list[Unrouted]:
    """Up to `limit` events that have not been matched yet, in the order of acceptance; locked."""
    rows = await session.execute(_UNROUTED, {"o": session.organization_id, "limit": limit})
    return [Unrouted(*row) for row in rows]


async def routed(session: OrganizationSession, ids: Sequence[UUID]) -> None:
    await session.execute(_ROUTED, {"o": session.organization_id, "ids": list(ids)})
