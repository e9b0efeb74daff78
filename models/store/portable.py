"""What journeys name, by id and by name, with its contents."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.portable import Name, Version
from models.store.session import OrganizationSession

_THINGS = """
    SELECT 'template' AS kind, id, name FROM templates WHERE organization_id = :o
    UNION ALL SELECT 'topic', id, key FROM topics WHERE organization_id = :o
    UNION ALL SELECT 'connection', id, name FROM connections WHERE organization_id = :o
    UNION ALL SELECT 'segment', id, name FROM segments WHERE organization_id = :o
    UNION ALL SELECT 'journey', id, name FROM journeys WHERE organization_id = :o"""
_BY_ID = text(f"SELECT * FROM ({_THINGS}) t WHERE id = ANY(:ids)")
_BY_NAME = text(f"SELECT * FROM ({_THINGS}) t WHERE name = ANY(:names) ORDER BY id DESC")  # of two with one name, the older
_VERSIONS = """SELECT v.id, t.name, t.channel, v.number, v.content_hash, v.subject, v.html, v.text
    FROM template_versions v JOIN templates t ON t.organization_id = v.organization_id AND t.id = v.template_id
    WHERE v.organization_id = :o"""
_PINNED = text(f"{_VERSIONS} AND v.id = ANY(:ids)")
_SAME = text(f"{_VERSIONS} AND t.name = ANY(:names) AND v.content_hash = ANY(:hashes) ORDER BY v.number")
_NEWEST = text(f"""SELECT DISTINCT ON (n.name) n.* FROM ({_VERSIONS} AND t.name = ANY(:names)) n ORDER BY n.name, n.number DESC""")
_TOPICS = text("SELECT key, name, description FROM topics WHERE organization_id = :o AND key = ANY(:names)")
_SEGMENTS = text("SELECT name, rule FROM segments WHERE organization_id = :o AND name = ANY(:names)")


@dataclass(frozen=True)
class TopicWords:
    name: str
    description: str


async def names(session: OrganizationSession, ids: Collection[UUID]) -> dict[tuple[str, UUID], Name]:
    """What these ids are called here, by kind and id; what does not exist is left out."""
    wanted = {"o": session.organization_id, "ids": list(ids)}
    found: dict[tuple[str, UUID], Name] = {(row.kind, row.id): row.name for row in await session.execute(_BY_ID, wanted)}
    for row in await session.execute(_PINNED, wanted):
        found["version", row.id] = Version(row.name, row.number, row.content_hash)
    return found


async def ids(session: OrganizationSession, wanted: Collection[tuple[str, Name]]) -> dict[tuple[str, Name], UUID]:
    """The ids of what is called so here; what does not exist is left out. Of a pinned version: of one that says the same."""
    mine = {"o": session.organization_id}
    rows = await session.execute(_BY_NAME, {**mine, "names": [name for _, name in wanted if isinstance(name, str)]})
    found: dict[tuple[str, Name], UUID] = {(row.kind, row.name): row.id for row in rows}
    pinned = [name for _, name in wanted if isinstance(name, Version)]
    hashes = {"names": [name.template for name in pinned], "hashes": [name.content_hash for name in pinned]}
    same = (await session.execute(_SAME, mine | hashes)).all() if pinned else []
    for name in pinned:
        fits = [row for row in same if (row.name, row.content_hash) == (name.template, name.content_hash)]
        if fits:
            found["version", name] = min(fits, key=lambda row: abs(row.number - name.number)).id
    return {key: identifier for key, identifier in found.items() if key in wanted}


async def newest_contents(session: OrganizationSession, names: Collection[str]) -> dict[str, TemplateContent]:
    """What these templates say now, by name."""
    rows = await session.execute(_NEWEST, {"o": session.organization_id, "names": list(names)})
    return {row.name: TemplateContent(row.channel, row.subject, row.html, row.text) for row in rows}


async def pinned_contents(session: OrganizationSession, ids: Collection[UUID]) -> dict[UUID, TemplateContent]:
    """What these template versions say, by id."""
    rows = await session.execute(_PINNED, {"o": session.organization_id, "ids": list(ids)})
    return {row.id: TemplateContent(row.channel, row.subject, row.html, row.text) for row in rows}


async def topics(session: OrganizationSession, keys: Collection[str]) -> dict[str, TopicWords]:
    """By key."""
    rows = await session.execute(_TOPICS, {"o": session.organization_id, "names": list(keys)})
    return {row.key: TopicWords(row.name, row.description) for row in rows}


async def segments(session: OrganizationSession, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Their rules, by name."""
    rows = await session.execute(_SEGMENTS, {"o": session.organization_id, "names": list(names)})
    return {row.name: row.rule for row in rows}
