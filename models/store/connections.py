"""Connections: accounts at providers, their sealed secrets, and their sending slots."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text

from models.domain.connection import secret_binding
from models.domain.errors import Conflict, NotFound
from models.secrets import Sealed, seal, unseal
from models.store.session import OrganizationSession
from models.tables.base import new_id

BURST = timedelta(seconds=1)  # how much of a connection's rate may be used at once after a pause

_COLUMNS = """id, organization_id, name, channel, provider, config, secret IS NOT NULL AS has_secret, status, broken_reason,
  is_default, rate_per_second, created_at, updated_at"""


@dataclass(frozen=True)
class NewConnection:
    """`config` is the provider's (`models.domain.connection`), without secrets; `rate_per_second` None: no limit."""

    name: str
    channel: str
    provider: str
    config: Mapping[str, Any]
    secret: str | None = field(default=None, repr=False)
    is_default: bool = False
    rate_per_second: float | None = None


@dataclass(frozen=True)
class StoredConnection:
    """A connection as it may be shown: everything but its secret."""

    id: UUID
    organization_id: UUID
    name: str
    channel: str
    provider: str
    config: dict[str, Any]
    has_secret: bool
    status: str
    broken_reason: str | None
    is_default: bool
    rate_per_second: float | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class SendingConnection:
    """A connection with its secret opened, for a provider. Lives in memory only; never logged or returned.

    `revision` changes with every edit: a provider built from an older one is stale. `status` is active or broken.
    """

    id: UUID
    organization_id: UUID
    channel: str
    provider: str
    config: dict[str, Any]
    status: str
    broken_reason: str | None
    rate_per_second: float | None
    revision: datetime
    secret: str | None = field(default=None, repr=False)


async def create(session: OrganizationSession, new: NewConnection, key: bytes, connection_id: UUID | None = None) -> UUID:
    """The connection exists with its secret sealed under `key` (settings.derive_key("connection-secrets")).

    A new default takes over from the old one.

    Raises:
        Conflict: another connection has this name.
    """
    identifier = connection_id or new_id()
    sealed = seal(key, new.secret, secret_binding(session.organization_id, identifier)) if new.secret is not None else None
    if new.is_default:
        await _clear_default(session, new.channel)
    created = await session.scalar(
        text(
            """INSERT INTO connections
               (id, organization_id, name, channel, provider, config, secret, key_id, status, is_default, rate_per_second)
               VALUES (:id, :o, :name, :channel, :provider, CAST(:config AS jsonb), :secret, :key_id, 'active', :is_default, :rate)
               ON CONFLICT (organization_id, name) DO NOTHING RETURNING id"""
        ),
        {
            "id": identifier,
            "o": session.organization_id,
            "name": new.name,
            "channel": new.channel,
            "provider": new.provider,
            "config": json.dumps(dict(new.config)),
            "secret": sealed.blob if sealed else None,
            "key_id": sealed.key_id if sealed else None,
            "is_default": new.is_default,
            "rate": new.rate_per_second,
        },
    )
    if created is None:
        raise Conflict("There is already a connection with this name. Choose another name.")
    await session.execute(
        text("INSERT INTO connection_rates (connection_id, organization_id, next_slot_at) VALUES (:id, :o, now())"),
        {"id": identifier, "o": session.organization_id},
    )
    return identifier


async def get(session: OrganizationSession, connection_id: UUID) -> StoredConnection:
    """Raises NotFound."""
    row = (
        (
            await session.execute(
                text(f"SELECT {_COLUMNS} FROM connections WHERE organization_id = :o AND id = :id"),
                {"o": session.organization_id, "id": connection_id},
            )
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFound("connection")
    return StoredConnection(**row)


async def list_page(session: OrganizationSession, limit: int, after: UUID | None) -> Sequence[StoredConnection]:
    """Connections by age, oldest first, starting behind `after`."""
    rows = await session.execute(
        text(
            f"""SELECT {_COLUMNS} FROM connections
                WHERE organization_id = :o AND (CAST(:after AS uuid) IS NULL OR id > :after) ORDER BY id LIMIT :limit"""
        ),
        {"o": session.organization_id, "after": after, "limit": limit},
    )
    return [StoredConnection(**row) for row in rows.mappings()]


async def change(session: OrganizationSession, stored: StoredConnection, new: NewConnection, key: bytes) -> None:
    """The connection is as `new` says; a `secret` of None keeps the old one. It counts as repaired.

    Raises:
        Conflict: another connection has this name.
    """
    taken = await session.scalar(
        text("SELECT 1 FROM connections WHERE organization_id = :o AND name = :name AND id <> :id"),
        {"o": session.organization_id, "name": new.name, "id": stored.id},
    )
    if taken:
        raise Conflict("There is already a connection with this name. Choose another name.")
    if new.is_default and not stored.is_default:
        await _clear_default(session, stored.channel)
    sealed = seal(key, new.secret, secret_binding(session.organization_id, stored.id)) if new.secret is not None else None
    await session.execute(
        text(
            """UPDATE connections SET name = :name, config = CAST(:config AS jsonb), is_default = :is_default, rate_per_second = :rate,
                 secret = coalesce(:secret, secret), key_id = coalesce(:key_id, key_id),
                 status = 'active', broken_reason = NULL, updated_at = clock_timestamp()
               WHERE organization_id = :o AND id = :id"""
        ),
        {
            "o": session.organization_id,
            "id": stored.id,
            "name": new.name,
            "config": json.dumps(dict(new.config)),
            "is_default": new.is_default,
            "rate": new.rate_per_second,
            "secret": sealed.blob if sealed else None,
            "key_id": sealed.key_id if sealed else None,
        },
    )


async def forget_secret(session: OrganizationSession, connection_id: UUID) -> None:
    """The connection has no secret any more."""
    await session.execute(
        text("UPDATE connections SET secret = NULL, key_id = NULL WHERE organization_id = :o AND id = :id"),
        {"o": session.organization_id, "id": connection_id},
    )


_USED = text(
    """
    WITH naming AS MATERIALIZED (
      SELECT v.id, v.journey_id, j.archived_at FROM journey_versions v JOIN journeys j ON j.organization_id = :o AND j.id = v.journey_id
      WHERE v.organization_id = :o
        AND jsonb_path_exists(v.definition, '$.steps.*.connection_id ? (@ == $id)', jsonb_build_object('id', CAST(:id AS text))))
    SELECT EXISTS (SELECT 1 FROM naming WHERE archived_at IS NULL) AS published,
           EXISTS (SELECT 1 FROM naming n JOIN runs r ON r.organization_id = :o AND r.journey_id = n.journey_id AND r.version_id = n.id
                   WHERE r.finished_at IS NULL) AS under_way
    """
)


async def delete(session: OrganizationSession, stored: StoredConnection) -> None:
    """The connection is gone.

    Raises:
        Conflict: others would be left without a default, a published journey names it, or runs of an archived one, which go on, do.
    """
    parameters = {"o": session.organization_id, "id": stored.id, "channel": stored.channel}
    if stored.is_default and await session.scalar(
        text("SELECT 1 FROM connections WHERE organization_id = :o AND channel = :channel AND id <> :id LIMIT 1"), parameters
    ):
        raise Conflict("This is the default connection. Make another one the default first.")
    used = (await session.execute(_USED, {"o": session.organization_id, "id": str(stored.id)})).one()
    if used.published:
        raise Conflict("A published journey sends through this connection. Archive the journey first.")
    if used.under_way:
        raise Conflict("Runs of an archived journey send through this connection. Wait until they have ended, or cancel or move them.")
    await session.execute(text("DELETE FROM connection_rates WHERE organization_id = :o AND connection_id = :id"), parameters)
    await session.execute(text("DELETE FROM connections WHERE organization_id = :o AND id = :id"), parameters)


async def load_for_sending(session: OrganizationSession, connection_id: UUID | None, channel: str, key: bytes) -> SendingConnection:
    """The connection with its secret opened; the organization's default of `channel` when the id is None.

    A broken connection is returned too: look at `status`.

    Raises:
        NotFound: no such connection, or no default.
        SecretUnreadable: sealed under another key than `key`.
    """
    row = (
        (
            await session.execute(
                text(
                    """SELECT id, organization_id, channel, provider, config, status, broken_reason, rate_per_second,
                         updated_at, secret, key_id
                       FROM connections WHERE organization_id = :o AND channel = :channel
                         AND CASE WHEN CAST(:id AS uuid) IS NULL THEN is_default ELSE id = :id END"""
                ),
                {"o": session.organization_id, "channel": channel, "id": connection_id},
            )
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFound(f"default {channel} connection" if connection_id is None else "connection")
    return _opened(row, key)


def _opened(row: RowMapping, key: bytes) -> SendingConnection:
    values = dict(row)
    blob, sealed_under, revision = values.pop("secret"), values.pop("key_id"), values.pop("updated_at")
    secret = None
    if blob is not None:
        secret = unseal(key, Sealed(sealed_under, bytes(blob)), secret_binding(row["organization_id"], row["id"]))
    return SendingConnection(**values, revision=revision, secret=secret)


async def mark_broken(session: OrganizationSession, connection_id: UUID, reason: str, revision: datetime) -> bool:
    """Runs wait until somebody mends it. True when it was active until now. `reason` is a code, of the connection as it was at `revision`:
    what has been changed since stays as it is."""
    return await _set_status(session, connection_id, "broken", reason, revision)


async def mark_active(session: OrganizationSession, connection_id: UUID, revision: datetime) -> bool:
    """It works again, as it was at `revision`. True when it was broken until now."""
    return await _set_status(session, connection_id, "active", None, revision)


async def _set_status(session: OrganizationSession, connection_id: UUID, status: str, reason: str | None, revision: datetime) -> bool:
    changed = await session.scalar(
        text(
            """UPDATE connections SET status = :status, broken_reason = :reason
               WHERE organization_id = :o AND id = :id AND status <> :status AND updated_at = :revision RETURNING id"""
        ),
        {"o": session.organization_id, "id": connection_id, "status": status, "reason": reason, "revision": revision},
    )
    return changed is not None


async def is_current(session: OrganizationSession, connection_id: UUID, revision: datetime) -> bool:
    """Whether nobody has changed or deleted the connection since `revision`."""
    query = "SELECT 1 FROM connections WHERE organization_id = :o AND id = :id AND updated_at = :revision"
    found = await session.scalar(text(query), {"o": session.organization_id, "id": connection_id, "revision": revision})
    return found is not None


# `line` is what the row says as the statement begins, and may be stale when another caller holds it; `reserved` looks again.
_FREE_AT = "r.next_slot_at - greatest(:burst - make_interval(secs => 1 / c.rate_per_second), interval '0')"
_RESERVE = text(
    f"""
    WITH line AS (
      SELECT {_FREE_AT} AS free_at, 1 / c.rate_per_second AS interval_seconds
      FROM connection_rates r JOIN connections c ON c.id = r.connection_id
      WHERE r.organization_id = :o AND r.connection_id = :id AND c.rate_per_second > 0),
    reserved AS (
      UPDATE connection_rates r
      SET next_slot_at = greatest(r.next_slot_at, clock_timestamp()) + make_interval(secs => :count / c.rate_per_second)
      FROM connections c
      WHERE c.id = r.connection_id AND r.organization_id = :o AND r.connection_id = :id AND c.rate_per_second > 0
        AND (CAST(:horizon AS interval) IS NULL OR {_FREE_AT} <= clock_timestamp() + :horizon)
      RETURNING r.next_slot_at AS reserved_to)
    SELECT clock_timestamp() AS now, line.*, reserved.* FROM (SELECT 1) one LEFT JOIN line ON true LEFT JOIN reserved ON true
    """
)


@dataclass(frozen=True)
class Slots:
    """Instants (aware UTC, the database's clock, which says `now`) at which a caller may send, ascending. Empty: the next one, `next_at`,
    is too far away."""

    now: datetime
    reserved: Sequence[datetime]
    next_at: datetime

    @property
    def delays(self) -> list[float]:
        """Seconds from now to each that is reserved, for those whose own clock may say another time; none is negative."""
        return [(slot - self.now).total_seconds() for slot in self.reserved]


async def reserve_slots(session: OrganizationSession, connection_id: UUID, count: int, horizon: timedelta | None = None) -> Slots:
    """`count` slots of the connection; none, and nothing is reserved, when the first of them is further away than `horizon`.

    All of them are "now" when the connection has no limit. One UPDATE of one row that all workers share, so commit soon:
    the row is locked until then. GCRA: after a pause up to `BURST` of the rate may be used at once. Calling again reserves again.
    """
    row = (
        await session.execute(
            _RESERVE, {"o": session.organization_id, "id": connection_id, "count": count, "burst": BURST, "horizon": horizon}
        )
    ).one()
    now: datetime = row.now
    if row.interval_seconds is None:
        return Slots(now, [now] * count, now)
    interval = timedelta(seconds=row.interval_seconds)
    if row.reserved_to is None:
        return Slots(now, [], row.free_at)
    first = row.reserved_to - interval * count - max(BURST - interval, timedelta(0))
    return Slots(now, [max(now, first + interval * number) for number in range(count)], first + interval * count)


async def _clear_default(session: OrganizationSession, channel: str) -> None:
    await session.execute(
        text("UPDATE connections SET is_default = false WHERE organization_id = :o AND channel = :channel AND is_default"),
        {"o": session.organization_id, "channel": channel},
    )
