"""Appending to and reading the audit chain."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Row

from models.domain.audit import GENESIS, Actor, Link, NewEntry, link
from models.store.session import OrganizationSession
from models.tables.base import new_id, utc_now

_LOCK_HEAD = text("SELECT sequence, hash FROM audit_heads WHERE organization_id = :o FOR UPDATE")
_FIRST_HEAD = text("INSERT INTO audit_heads (organization_id, sequence, hash) VALUES (:o, 0, :genesis) ON CONFLICT DO NOTHING")
# Hashes go as hex and all details as one document: arrays of bytea and of quoted text cost 90 us per entry to escape.
_WRITE = text(
    """
    WITH added AS (
      INSERT INTO audit_entries (organization_id, sequence, id, occurred_at, actor_kind, actor_id, action,
                                 subject_kind, subject_id, details, previous_hash, hash)
      SELECT :o, sequence, id, occurred_at, actor_kind, actor_id, action, subject_kind, subject_id, details,
             decode(previous_hash, 'hex'), decode(hash, 'hex')
      FROM ROWS FROM (
        unnest(CAST(:sequences AS bigint[]), CAST(:ids AS uuid[]), CAST(:times AS timestamptz[]), CAST(:actor_kinds AS text[]),
               CAST(:actor_ids AS uuid[]), CAST(:actions AS text[]), CAST(:subject_kinds AS text[]), CAST(:subject_ids AS text[]),
               CAST(:previous_hashes AS text[]), CAST(:hashes AS text[])),
        jsonb_array_elements(CAST(:details AS jsonb))
      ) AS e(sequence, id, occurred_at, actor_kind, actor_id, action, subject_kind, subject_id, previous_hash, hash, details)
    )
    UPDATE audit_heads SET sequence = :head_sequence, hash = :head_hash WHERE organization_id = :o
    """
)
_COLUMNS = "sequence, id, occurred_at, actor_kind, actor_id, action, subject_kind, subject_id, details, previous_hash, hash"


async def append(session: OrganizationSession, entries: Sequence[NewEntry]) -> None:
    """The entries stand at the end of the organization's chain when the caller's transaction commits.

    Locks the chain head until then, so call it last in a transaction, once for all of its entries.

    Raises:
        TypeError: an entry's details hold something other than ids, codes, numbers and times.
    """
    if not entries:
        return
    sequence, previous = await _lock_head(session)
    links: list[Link] = []
    now = utc_now()
    for number, entry in enumerate(entries, sequence + 1):
        links.append(link(session.organization_id, number, previous, new_id(), entry, now))
        previous = links[-1].hash
    await session.execute(_WRITE, {"o": session.organization_id} | _columns(links))


async def _lock_head(session: OrganizationSession) -> tuple[int, bytes]:
    found = (await session.execute(_LOCK_HEAD, {"o": session.organization_id})).one_or_none()
    if found is None:
        await session.execute(_FIRST_HEAD, {"o": session.organization_id, "genesis": GENESIS})
        found = (await session.execute(_LOCK_HEAD, {"o": session.organization_id})).one()
    return found.sequence, found.hash


def _columns(links: Sequence[Link]) -> dict[str, Any]:
    return {
        "sequences": [entry.sequence for entry in links],
        "ids": [entry.id for entry in links],
        "times": [entry.occurred_at for entry in links],
        "actor_kinds": [entry.actor.kind for entry in links],
        "actor_ids": [entry.actor.id for entry in links],
        "actions": [entry.action for entry in links],
        "subject_kinds": [entry.subject_kind for entry in links],
        "subject_ids": [entry.subject_id for entry in links],
        "details": json.dumps([entry.details for entry in links], ensure_ascii=False),
        "previous_hashes": [entry.previous_hash.hex() for entry in links],
        "hashes": [entry.hash.hex() for entry in links],
        "head_sequence": links[-1].sequence,
        "head_hash": links[-1].hash,
    }


@dataclass(frozen=True)
class EntryFilter:
    """Which entries; None means any. Times are aware UTC: from `since` on, before `until`."""

    subject_kind: str | None = None
    subject_id: str | None = None
    action: str | None = None
    actor_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


async def list_entries(
    session: OrganizationSession, wanted: EntryFilter, limit: int, after: int | None = None, *, newest_first: bool = False
) -> list[Link]:
    """At most `limit` entries behind the sequence number `after`, oldest first or newest first."""
    conditions = ["organization_id = :o"]
    parameters: dict[str, Any] = {"o": session.organization_id, "limit": limit}
    if after is not None:
        conditions.append("sequence < :after" if newest_first else "sequence > :after")
        parameters["after"] = after
    for name, condition in _CONDITIONS.items():
        if (value := getattr(wanted, name)) is not None:
            conditions.append(condition)
            parameters[name] = value
    order = "DESC" if newest_first else "ASC"
    query = f"SELECT {_COLUMNS} FROM audit_entries WHERE {' AND '.join(conditions)} ORDER BY sequence {order} LIMIT :limit"
    return [_link(row) for row in await session.execute(text(query), parameters)]


_CONDITIONS = {
    "subject_kind": "subject_kind = :subject_kind",
    "subject_id": "subject_id = :subject_id",
    "action": "action = :action",
    "actor_id": "actor_id = :actor_id",
    "since": "occurred_at >= :since",
    "until": "occurred_at < :until",
}


def _link(row: Row[Any]) -> Link:
    return Link(
        row.sequence,
        row.id,
        row.occurred_at,
        Actor(row.actor_kind, row.actor_id),
        row.action,
        row.subject_kind,
        row.subject_id,
        row.details,
        row.previous_hash,
        row.hash,
    )


@dataclass(frozen=True)
class Head:
    """The end of a chain; sequence 0 and `GENESIS` while it is empty."""

    sequence: int
    hash: bytes


async def head(session: OrganizationSession) -> Head:
    """The end of the chain as this transaction sees it."""
    query = text("SELECT sequence, hash FROM audit_heads WHERE organization_id = :o")
    found = (await session.execute(query, {"o": session.organization_id})).one_or_none()
    return Head(0, GENESIS) if found is None else Head(found.sequence, found.hash)
