"""Templates and their versions, which never change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import bindparam

from models.domain.errors import Conflict, NotFound
from models.domain.journey.content_hash import TemplateContent
from models.domain.template import version_hash
from models.store.session import OrganizationSession
from models.tables.base import new_id

_TEMPLATE = """SELECT t.id, t.name, t.channel, t.archived_at, t.created_at,
    (SELECT max(v.number) FROM template_versions v WHERE v.template_id = t.id) AS newest_version
  FROM templates t WHERE t.organization_id = :o"""
_VERSION = """SELECT v.id, v.template_id, v.number, t.channel, v.subject, v.html, v.text, v.variables, v.content_hash,
    v.created_by, v.created_at
  FROM template_versions v JOIN templates t ON t.id = v.template_id WHERE v.organization_id = :o AND v.template_id = :template_id"""


@dataclass(frozen=True)
class StoredTemplate:
    id: UUID
    name: str
    channel: str
    archived_at: datetime | None
    created_at: datetime
    newest_version: int


@dataclass(frozen=True)
class StoredVersion:
    id: UUID
    template_id: UUID
    number: int
    channel: str
    subject: str
    html: str
    text: str
    variables: list[str]
    content_hash: str
    created_by: UUID | None
    created_at: datetime


async def create(session: OrganizationSession, name: str, channel: str) -> UUID:
    """The template exists, without a version yet. Raises Conflict when the name is taken."""
    created: UUID | None = await session.scalar(
        text(
            """INSERT INTO templates (id, organization_id, name, channel) VALUES (:id, :o, :name, :channel)
               ON CONFLICT (organization_id, name) DO NOTHING RETURNING id"""
        ),
        {"id": new_id(), "o": session.organization_id, "name": name, "channel": channel},
    )
    if created is None:
        raise Conflict("There is already a template with this name. Choose another name.")
    return created


async def add_version(
    session: OrganizationSession, template_id: UUID, content: TemplateContent, variables: Sequence[str], created_by: UUID | None
) -> StoredVersion:
    """The next version of the template. Versions of one template are numbered one after the other from 1.

    Raises:
        NotFound: no such template.
    """
    await _lock(session, template_id)
    await session.execute(
        text(
            """INSERT INTO template_versions
                 (id, organization_id, template_id, number, subject, html, text, variables, content_hash, created_by)
               SELECT :id, :o, :template_id, coalesce(max(number), 0) + 1, :subject, :html, :text, :variables, :hash, :created_by
               FROM template_versions WHERE organization_id = :o AND template_id = :template_id"""
        ).bindparams(bindparam("variables", type_=JSONB)),
        {
            "id": new_id(),
            "o": session.organization_id,
            "template_id": template_id,
            "subject": content.subject,
            "html": content.html,
            "text": content.text,
            "variables": list(variables),
            "hash": version_hash(content),
            "created_by": created_by,
        },
    )
    return await get_version(session, template_id)


async def _lock(session: OrganizationSession, template_id: UUID) -> None:
    locked = await session.scalar(
        text("SELECT id FROM templates WHERE organization_id = :o AND id = :id FOR UPDATE"),
        {"o": session.organization_id, "id": template_id},
    )
    if locked is None:
        raise NotFound("template")


async def get(session: OrganizationSession, template_id: UUID) -> StoredTemplate:
    """Raises NotFound."""
    rows = await session.execute(text(f"{_TEMPLATE} AND t.id = :id"), {"o": session.organization_id, "id": template_id})
    row = rows.mappings().one_or_none()
    if row is None:
        raise NotFound("template")
    return StoredTemplate(**row)


async def list_page(session: OrganizationSession, channel: str | None, limit: int, after: UUID | None) -> Sequence[StoredTemplate]:
    """Templates by age, oldest first, archived ones included, starting behind `after`."""
    rows = await session.execute(
        text(
            f"""{_TEMPLATE} AND (CAST(:after AS uuid) IS NULL OR t.id > :after)
                AND (CAST(:channel AS text) IS NULL OR t.channel = :channel) ORDER BY t.id LIMIT :limit"""
        ),
        {"o": session.organization_id, "after": after, "channel": channel, "limit": limit},
    )
    return [StoredTemplate(**row) for row in rows.mappings()]


async def get_version(session: OrganizationSession, template_id: UUID, number: int | None = None) -> StoredVersion:
    """One version; the newest when `number` is None. Raises NotFound."""
    rows = await session.execute(
        text(f"{_VERSION} AND (CAST(:number AS integer) IS NULL OR v.number = :number) ORDER BY v.number DESC LIMIT 1"),
        {"o": session.organization_id, "template_id": template_id, "number": number},
    )
    row = rows.mappings().one_or_none()
    if row is None:
        raise NotFound("template" if number is None else "template version")
    return _version(row)


async def list_versions(session: OrganizationSession, template_id: UUID, limit: int, after: UUID | None) -> Sequence[StoredVersion]:
    """Versions by number, starting behind the version with id `after`."""
    rows = await session.execute(
        text(f"{_VERSION} AND (CAST(:after AS uuid) IS NULL OR v.id > :after) ORDER BY v.id LIMIT :limit"),
        {"o": session.organization_id, "template_id": template_id, "after": after, "limit": limit},
    )
    return [_version(row) for row in rows.mappings()]


def _version(row: RowMapping) -> StoredVersion:
    return StoredVersion(**row)


async def change(session: OrganizationSession, template_id: UUID, values: Mapping[str, Any]) -> tuple[StoredTemplate, tuple[str, ...]]:
    """The template with `name` or `archived` as given, and the names of what is different now.

    Raises:
        NotFound: no such template.
        Conflict: the name is taken.
    """
    await _lock(session, template_id)
    before = await get(session, template_id)
    parameters = {"o": session.organization_id, "id": template_id, "name": values.get("name"), "archived": values.get("archived")}
    if "name" in values and await session.scalar(
        text("SELECT 1 FROM templates WHERE organization_id = :o AND name = :name AND id <> :id"), parameters
    ):
        raise Conflict("There is already a template with this name. Choose another name.")
    await session.execute(
        text(
            """UPDATE templates SET name = coalesce(:name, name),
                 archived_at = CASE WHEN CAST(:archived AS boolean) IS NULL THEN archived_at
                                    WHEN :archived THEN coalesce(archived_at, now()) END
               WHERE organization_id = :o AND id = :id"""
        ),
        parameters,
    )
    after = await get(session, template_id)
    different = {"archived": after.archived_at != before.archived_at, "name": after.name != before.name}
    return after, tuple(name for name, is_different in different.items() if is_different)
