"""Failed logins, counted in the database so that every process sees them. They belong to no organization yet, and hold
keyed hashes of email and address, never the values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from models.tables.base import new_id


@dataclass(frozen=True)
class Attempts:
    """What is allowed of one subject (an email, an address) within the window."""

    subject_hash: bytes
    limit: int


_NOTE_ATTEMPTS = text("INSERT INTO login_attempts (id, subject_hash) SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]))")
_COUNT_ATTEMPTS = text(
    "SELECT subject_hash, count(*) AS attempts, min(attempted_at) + :window - now() AS retry_after FROM login_attempts"
    " WHERE subject_hash = ANY(CAST(:hashes AS bytea[])) AND attempted_at > now() - :window GROUP BY subject_hash"
)
_FORGET_OLD_ATTEMPTS = text(
    "DELETE FROM login_attempts WHERE id IN (SELECT id FROM login_attempts WHERE attempted_at < now() - :window LIMIT 100)"
)


async def note_attempt(session: AsyncSession, subjects: Sequence[Attempts], window: timedelta) -> timedelta | None:
    """None when this attempt is allowed and noted; otherwise how long to wait, and nothing is noted.

    An attempt is noted before its outcome is known, one after the other per subject, so that guesses made at the same
    time are counted too.
    """
    hashes = sorted(subject.subject_hash for subject in subjects)
    for subject_hash in hashes:
        lock = int.from_bytes(subject_hash[:8], "big", signed=True)
        await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
    rows = {row.subject_hash: row for row in await session.execute(_COUNT_ATTEMPTS, {"hashes": hashes, "window": window})}
    spent = [rows[one.subject_hash] for one in subjects if one.subject_hash in rows and rows[one.subject_hash].attempts >= one.limit]
    if spent:
        longest: timedelta = max(row.retry_after for row in spent)
        return max(longest, timedelta(seconds=1))
    await session.execute(_FORGET_OLD_ATTEMPTS, {"window": window})
    await session.execute(_NOTE_ATTEMPTS, {"ids": [new_id() for _ in hashes], "hashes": hashes})
    return None


async def forget_attempts(session: AsyncSession, email_hash: bytes, address_hash: bytes) -> None:
    """A login succeeded: nothing is held against the email, and this attempt not against the address. The address keeps
    its failures, or one good login would free a guesser."""
    await session.execute(text("DELETE FROM login_attempts WHERE subject_hash = :hash"), {"hash": email_hash})
    await session.execute(
        text(
            "DELETE FROM login_attempts WHERE id ="
            " (SELECT id FROM login_attempts WHERE subject_hash = :hash ORDER BY attempted_at DESC LIMIT 1)"
        ),
        {"hash": address_hash},
    )
