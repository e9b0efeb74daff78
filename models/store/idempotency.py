"""The stored answers of POSTs that carried an `Idempotency-Key`."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text

from models.store.session import OrganizationSession
from models.tables.base import new_id

KEPT: Final = timedelta(hours=24)
# A request that runs longer than this is taken for dead, and its key may be used again. The longest one, an import of
# a million rows, takes about a minute.
PRESUMED_DEAD: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Reserved:
    """The key is ours: run the request, then settle or release `id`. `note`: that of this request, or of the same one before, which was
    taken for dead."""

    id: UUID
    note: bytes | None = None


@dataclass(frozen=True)
class Earlier:
    """The key was used before. `status_code` is None while that request still runs; `answer` is its note until then."""

    request_hash: bytes
    status_code: int | None
    answer: bytes | None


_RESERVE = text(
    """
    INSERT INTO idempotency_keys AS k (id, organization_id, actor_id, key, request_hash, headers, body)
    VALUES (:id, :o, :actor_id, :key, :request_hash, '{}', :note)
    ON CONFLICT (organization_id, actor_id, key) DO UPDATE
      SET id = EXCLUDED.id, request_hash = EXCLUDED.request_hash, status_code = NULL, created_at = now(),
        body = CASE WHEN k.status_code IS NULL AND k.request_hash = EXCLUDED.request_hash THEN coalesce(k.body, EXCLUDED.body)
                    ELSE EXCLUDED.body END
      WHERE k.created_at < now() - CAST(:kept AS interval)
         OR (k.status_code IS NULL AND k.created_at < now() - CAST(:presumed_dead AS interval))
    RETURNING id, body
    """
)
_READ = text(
    "SELECT request_hash, status_code, body AS answer FROM idempotency_keys"
    " WHERE organization_id = :o AND actor_id = :actor_id AND key = :key"
)
_FORGET_OLD = text(
    "DELETE FROM idempotency_keys WHERE id IN (SELECT id FROM idempotency_keys WHERE organization_id = :o"
    " AND created_at < now() - CAST(:kept AS interval) ORDER BY created_at LIMIT 20 FOR UPDATE SKIP LOCKED)"
)


async def reserve(
    session: OrganizationSession, actor_id: UUID, key: str, request_hash: bytes, note: bytes | None = None
) -> Reserved | Earlier:
    """The key is reserved for this request, or what is known of the earlier one. Forgets a few expired keys. `note`: what is to be known
    of this one when it is repeated, until it is settled.

    Of requests with one key at the same time, the first to insert reserves it; the others see it as still running.
    """
    parameters = {"o": session.organization_id, "actor_id": actor_id, "key": key}
    fresh = {"id": new_id(), "request_hash": request_hash, "note": note, "kept": KEPT, "presumed_dead": PRESUMED_DEAD}
    reserved = (await session.execute(_RESERVE, parameters | fresh)).one_or_none()
    if reserved is not None:
        await session.execute(_FORGET_OLD, {"o": session.organization_id, "kept": KEPT})
        return Reserved(reserved.id, reserved.body)
    row = (await session.execute(_READ, parameters)).mappings().one()
    return Earlier(**row)


async def settle(session: OrganizationSession, reserved: Reserved, status_code: int, answer: bytes) -> None:
    """The answer is stored, unless the key was taken over meanwhile."""
    await session.execute(
        text("UPDATE idempotency_keys SET status_code = :status_code, body = :answer WHERE organization_id = :o AND id = :id"),
        {"o": session.organization_id, "id": reserved.id, "status_code": status_code, "answer": answer},
    )


async def release(session: OrganizationSession, reserved: Reserved) -> None:
    """The key may be used again at once."""
    await session.execute(
        text("DELETE FROM idempotency_keys WHERE organization_id = :o AND id = :id"), {"o": session.organization_id, "id": reserved.id}
    )
