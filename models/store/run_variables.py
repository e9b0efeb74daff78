"""Runs' variables, changed by operators: the row first, in one statement for all, and their workflows are told through the outbox."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import Actor, NewEntry
from models.domain.journey.operations import MOST_VARIABLES, VARIABLES_BYTES
from models.store import audit, changes, outbox
from models.store.outbox import OutboxMessage
from models.store.session import OrganizationSession

_CHANGE = text(
    """
    WITH told AS MATERIALIZED (
      SELECT r.id, r.contact_id, r.variables AS before, r.finished_at,
        (r.variables - ARRAY(SELECT jsonb_array_elements_text(CAST(:removed AS jsonb)))) || CAST(:given AS jsonb) AS after
      FROM runs r WHERE r.organization_id = :o AND r.id = ANY(CAST(:ids AS uuid[])) ORDER BY r.id FOR NO KEY UPDATE),
    judged AS MATERIALIZED (
      SELECT t.*, CASE WHEN t.finished_at IS NOT NULL THEN 'finished' WHEN t.after = t.before THEN 'already'
                       WHEN t.bytes > greatest(:most_bytes, octet_length(CAST(t.before AS text)))
                         OR t.names > greatest(:most, (SELECT count(*) FROM jsonb_object_keys(t.before))) THEN 'variables_too_large'
                  END AS why
      FROM (
        SELECT told.*, octet_length(CAST(told.after AS text)) AS bytes,
          (SELECT count(*) FROM jsonb_object_keys(told.after)) AS names FROM told) t),
    changed AS (
      UPDATE runs r SET variables = j.after, updated_at = clock_timestamp() FROM judged j
      WHERE r.organization_id = :o AND r.id = j.id AND j.why IS NULL)
    SELECT id, contact_id, why FROM judged ORDER BY id
    """
)


_VARIABLES = text("SELECT id, variables FROM runs WHERE organization_id = :o AND id = ANY(CAST(:ids AS uuid[]))")


async def variables_of(session: OrganizationSession, run_ids: Sequence[UUID]) -> dict[UUID, Mapping[str, Any]]:
    """The runs' variables, by run."""
    found = await session.execute(_VARIABLES, {"o": session.organization_id, "ids": list(run_ids)})
    return {row.id: row.variables for row in found}


@dataclass(frozen=True)
class VariableChange:
    """`values` by name; None takes the variable away."""

    values: Mapping[str, Any]
    actor: Actor
    reason: str | None = None
    operation_id: UUID | None = None


async def change(session: OrganizationSession, run_ids: Sequence[UUID], wanted: VariableChange) -> dict[UUID, str | None]:
    """The runs hold these values, their workflows will be told (the names only), and the chain has it. By run: None where that changed
    something, otherwise the code of why it did not; runs that do not exist are left out. What is beyond the bounds already may not grow.

    Safe to repeat: what is so already is not said again. Call it last in a transaction: it locks the audit chain's head.
    """
    removed = [name for name, value in wanted.values.items() if value is None]
    given = {name: value for name, value in wanted.values.items() if value is not None}
    parameters = {
        "o": session.organization_id,
        "ids": list(run_ids),
        "removed": json.dumps(removed),
        "given": json.dumps(given),
        "most_bytes": VARIABLES_BYTES,
        "most": MOST_VARIABLES,
    }
    rows = (await session.execute(_CHANGE, parameters)).all()
    changed = [row for row in rows if row.why is None]
    names = sorted(wanted.values)
    said = {
        "names": names,
        "reason": wanted.reason,
        "actor_kind": wanted.actor.kind,
        "actor_id": None if wanted.actor.id is None else str(wanted.actor.id),
        "operation_id": None if wanted.operation_id is None else str(wanted.operation_id),
    }
    await outbox.add(session, [OutboxMessage(row.id, "variables", said) for row in changed])
    await changes.note(session, sorted({row.contact_id for row in changed}))
    details = {"names": names} | ({"reason": wanted.reason} if wanted.reason else {})
    await audit.append(session, [NewEntry("run.variables_changed", "run", str(row.id), wanted.actor, details) for row in changed])
    return {row.id: row.why for row in rows}
