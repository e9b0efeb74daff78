"""Ids made by the database, and times as ids."""

from datetime import datetime
from uuid import UUID


def uuid7(milliseconds: str) -> str:
    """SQL for a UUIDv7: 48 bits of milliseconds, the version, and the rest of a random UUID. PostgreSQL has uuidv7() only from 18 on.

    `milliseconds`: SQL for the time as twelve hexadecimal digits."""
    return f"""CAST(overlay(overlay(CAST(gen_random_uuid() AS text) PLACING '7' FROM 15) PLACING
    substr({milliseconds}, 1, 8) || '-' || substr({milliseconds}, 9, 4) FROM 1 FOR 13) AS uuid)"""


UUID7_NOW = uuid7("lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)), 12, '0')")


def first_id(at: datetime) -> UUID:
    """No UUIDv7 made at `at` (aware) or later is smaller: ids are ordered by age, so a span of ids is a span of time."""
    return UUID(int=(int(at.timestamp() * 1000) << 80) | (7 << 76))
