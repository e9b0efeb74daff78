"""What the end of a wait depends on: contacts' zones, and dates of contacts and runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.wait_time import Place
from models.store.rowset import rowset
from models.store.session import OrganizationSession


@dataclass(frozen=True)
class Known:
    """`value`: what the asked field holds, None: nothing."""

    place: Place
    value: Any = None


_KNOWN = text(
    """
    SELECT a.run_id, c.timezone, o.timezone AS organization_timezone,
      CASE a.source WHEN 'attributes' THEN c.attributes -> a.key WHEN 'run' THEN r.variables -> a.key
        WHEN 'created_at' THEN to_jsonb(c.created_at) WHEN 'updated_at' THEN to_jsonb(c.updated_at) END AS value
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(run_id uuid, contact_id uuid, source text, key text)
    JOIN organizations o ON o.id = :o
    LEFT JOIN LATERAL (SELECT * FROM contacts c WHERE c.organization_id = :o AND c.id = a.contact_id LIMIT 1) c ON true
    LEFT JOIN LATERAL (SELECT r.variables FROM runs r WHERE r.organization_id = :o AND r.id = a.run_id LIMIT 1) r ON true
    """
)


async def load(session: OrganizationSession, contacts: Mapping[UUID, UUID], fields: Mapping[UUID, str]) -> dict[UUID, Known]:
    """By run of `contacts` (run to contact): where its contact is, and what the field of `fields` holds. One statement."""
    rows = []
    for run_id, contact_id in contacts.items():
        source, _, key = fields.get(run_id, "").partition(".")
        rows.append({"run_id": run_id, "contact_id": contact_id, "source": source, "key": key})
    found = await session.execute(_KNOWN, {"o": session.organization_id, "rows": rowset(rows)})
    return {row.run_id: Known(Place(row.timezone, row.organization_timezone), _plain(row.value)) for row in found}


def _plain(value: Any) -> Any:
    """PostgreSQL writes `2026-01-31T09:00:00.123+00:00`, which is what a moment's text looks like."""
    return value.isoformat() if isinstance(value, datetime) else value
