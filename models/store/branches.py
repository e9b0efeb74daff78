"""Which branch each run takes: a branch step's conditions, evaluated by the database on contacts as they are now."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.store.rowset import rowset
from models.store.segment_sql import compile_rule
from models.store.session import OrganizationSession


async def choose(
    session: OrganizationSession, conditions: Sequence[Mapping[str, Any]], contacts: Mapping[UUID, UUID], now: datetime
) -> dict[UUID, int | None]:
    """By run of `contacts` (run to contact), the index of the first condition that holds; None where none does or the
    contact is gone. One statement, whatever the number of runs and conditions. `now` (aware) is what rules count from.

    Raises:
        Invalid: a condition is malformed.
    """
    compiled = [compile_rule(condition, now) for condition in conditions]
    cases = " ".join(f"WHEN {rule.sql} THEN {index}" for index, rule in enumerate(compiled))
    statement = text(
        f"""SELECT a.run_id, {f"CASE {cases} END" if cases else "NULL"} AS chosen
            FROM jsonb_to_recordset(CAST(:asked AS jsonb)) AS a(run_id uuid, contact_id uuid)
            CROSS JOIN LATERAL (SELECT * FROM contacts c WHERE c.organization_id = :o AND c.id = a.contact_id LIMIT 1) c
            LEFT JOIN LATERAL (SELECT * FROM runs r WHERE r.organization_id = :o AND r.id = a.run_id LIMIT 1) r ON true"""
    )
    asked = rowset([{"run_id": run_id, "contact_id": contact_id} for run_id, contact_id in contacts.items()])
    parameters: dict[str, Any] = {"o": session.organization_id, "asked": asked}
    for rule in compiled:
        parameters |= rule.parameters
    found = {row.run_id: row.chosen for row in await session.execute(statement, parameters)}
    return {run_id: found.get(run_id) for run_id in contacts}
