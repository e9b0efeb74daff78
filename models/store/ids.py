"""Ids made by the database, and times as ids."""

from datetime import datetime
from uuid import UUID

# A UUIDv7: 48 bits of milliseconds, the version, and the rest of a random UUID. PostgreSQL has uuidv7() only from 18 on.
_MILLISECONDS = "lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)), 12, '0')"
UUID7_NOW = f"""CAST(overlay(overlay(CAST(gen_random_uuid() AS text) PLACING '7' FROM 15) PLACING
    substr({_MILLISECONDS}, 1, 8) || '-' || substr({_MILLISECONDS}, 9, 4) FROM 1 FOR 13) AS uuid)"""


def first_id(at: datetime) -> UUID:
    """No UUIDv7 made at `at` (aware) or later is smaller: ids are ordered by age, so a span of ids is a span of time."""
    return UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76))
