"""Gives an organization custom attributes."""

import json
from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import text

from models.store.session import Database


async def set_attribute_schema(database: Database, organization_id: UUID, types: Mapping[str, str]) -> None:
    schema = json.dumps({key: {"type": kind} for key, kind in types.items()})
    async with database.organization(organization_id) as session:
        await session.execute(
            text("UPDATE organizations SET attribute_schema = CAST(:schema AS jsonb) WHERE id = :o"),
            {"schema": schema, "o": organization_id},
        )
