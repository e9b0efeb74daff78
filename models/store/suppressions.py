"""Addresses that must not be written to, whatever consent says. Only keyed hashes of them are kept."""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlmodel import col

from models.domain.audit import Actor, NewEntry
from models.domain.errors import Conflict, NotFound
from models.store import audit
from models.store.session import OrganizationSession
from models.tables.base import new_id, utc_now
from models.tables.contacts import Suppression


def address_hash(key: bytes, channel: str, address: str) -> bytes:
    """HMAC-SHA-256 of the channel and the address in its one form: email trimmed and in lower case, phone as E.164.

    `key` is `settings.derive_key("suppressions")`.
    """
    if channel == "email":
        form = address.strip().lower()
    else:
        form = "+" + re.sub(r"\D", "", address, flags=re.ASCII)
        channel = "phone"  # sms, mms and voice reach the same person at the same number
    return hmac.new(key, f"{channel}\0{form}".encode(), hashlib.sha256).digest()


_SUPPRESS = text(
    """
    INSERT INTO suppressions (organization_id, created_at, id, channel, address_hash, reason, source)
    SELECT :o, now(), line.id, :channel, line.hash, :reason, :source
    FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[])) AS line(id, hash)
    ON CONFLICT (organization_id, channel, address_hash) WHERE released_at IS NULL DO NOTHING
    RETURNING id
    """
)


async def suppress(
    session: OrganizationSession, channel: str, hashes: Sequence[bytes], reason: str, source: str, actor: Actor
) -> list[UUID]:
    """Nothing is sent over `channel` to these addresses any more. Answers the ids of those that were not suppressed before.

    Safe to repeat: an address that is suppressed stays so, with its first reason. Locks the audit chain's head:
    call it last in a transaction.
    """
    added = await add(session, channel, hashes, reason, source)
    await audit.append(session, added_entries(added, channel, reason, actor))
    return added


async def add(session: OrganizationSession, channel: str, hashes: Sequence[bytes], reason: str, source: str) -> list[UUID]:
    """As `suppress`, for callers that append `added_entries` to the audit chain themselves, later in the transaction."""
    unique = sorted(set(hashes))  # sorted: two batches lock the rows in one order
    if not unique:
        return []
    parameters = {"o": session.organization_id, "channel": channel, "reason": reason, "source": source}
    rows = await session.execute(_SUPPRESS, parameters | {"ids": [new_id() for _ in unique], "hashes": unique})
    return list(rows.scalars())


def added_entries(added: Sequence[UUID], channel: str, reason: str, actor: Actor) -> list[NewEntry]:
    """For the audit chain."""
    details = {"channel": channel, "reason": reason}
    return [NewEntry("suppression.added", "suppression", str(found), actor, details) for found in added]


@dataclass(frozen=True)
class SuppressionFilter:
    """Which suppressions; None means any. `hashes` are those of one address for each kind of channel."""

    channel: str | None = None
    hashes: Sequence[bytes] | None = None
    released: bool = False


async def list_suppressions(
    session: OrganizationSession, wanted: SuppressionFilter, limit: int, after: UUID | None = None
) -> Sequence[Suppression]:
    """At most `limit` suppressions, oldest first, after the id `after`; released ones only if asked for."""
    query = select(Suppression).where(col(Suppression.organization_id) == session.organization_id)
    if wanted.channel is not None:
        query = query.where(col(Suppression.channel) == wanted.channel)
    if wanted.hashes is not None:
        query = query.where(col(Suppression.address_hash).in_(wanted.hashes))
    if not wanted.released:
        query = query.where(col(Suppression.released_at).is_(None))
    if after is not None:
        query = query.where(col(Suppression.id) > after)
    return (await session.scalars(query.order_by(col(Suppression.id)).limit(limit))).all()


async def release(session: OrganizationSession, suppression_id: UUID, reason: str, actor: Actor) -> None:
    """The address may be written to again, as far as consent allows; the row stays for the record. Safe to repeat.

    `reason` is a code. Locks the audit chain's head: call it last in a transaction.

    Raises:
        NotFound: there is no such suppression.
        Conflict: the provider itself refuses the number, which staff cannot take back.
    """
    query = select(Suppression).where(col(Suppression.id) == suppression_id, col(Suppression.organization_id) == session.organization_id)
    found = (await session.scalars(query.with_for_update())).one_or_none()
    if found is None:
        raise NotFound("suppression", suppression_id)
    if found.released_at is not None:
        return
    if found.channel == "sms" and found.source == "provider":
        raise Conflict("The provider blocks this number because its holder wrote STOP; only the holder can take that back, with START.")
    found.released_at = utc_now()
    found.release_reason = reason
    await session.flush()
    details = {"channel": found.channel, "reason": reason}
    await audit.append(session, [NewEntry("suppression.released", "suppression", str(suppression_id), actor, details)])
