"""Published versions: frozen, numbered from 1, never changed."""

from collections.abc import Sequence, Set
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from models.domain.errors import NotFound
from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.definition import Definition, SendStep
from models.domain.journey.facts import ConnectionFact, Facts, JourneyFact, TemplateFact, TopicFact
from models.domain.journey.leading import enters_at_once, leads_to
from models.store.session import OrganizationSession
from models.tables.base import new_id
from models.tables.journeys import Journey, JourneyVersion

_TEMPLATES = text("""
    SELECT t.id, t.channel, t.archived_at IS NOT NULL, v.id, v.variables
    FROM templates t LEFT JOIN template_versions v ON v.template_id = t.id
        AND (v.id = ANY(:version_ids) OR v.number = (SELECT max(number) FROM template_versions n WHERE n.template_id = t.id))
    WHERE t.organization_id = :organization_id AND t.id = ANY(:ids) ORDER BY t.id, v.number DESC""")
_TOPICS = text("SELECT id, key, archived_at IS NOT NULL FROM topics WHERE organization_id = :organization_id")
_CONNECTIONS = text("SELECT id, channel, is_default FROM connections WHERE organization_id = :organization_id ORDER BY id")
_ATTRIBUTES = text("SELECT attribute_schema FROM organizations WHERE id = :organization_id")
_SEGMENTS = text("SELECT id, rule FROM segments WHERE organization_id = :organization_id")
_JOURNEYS = text("""
    SELECT j.id, EXISTS (SELECT 1 FROM journey_versions v WHERE v.journey_id = j.id), j.archived_at IS NOT NULL
    FROM journeys j WHERE j.organization_id = :organization_id""")
_MEMBERS = text("SELECT user_id FROM memberships WHERE organization_id = :organization_id")
_CONTENTS = text("""
    SELECT v.id, t.channel, v.subject, v.html, v.text
    FROM template_versions v JOIN templates t ON t.id = v.template_id
    WHERE v.organization_id = :organization_id AND v.id = ANY(:ids)""")


async def facts(session: OrganizationSession, definition: Definition, journey_id: UUID | None = None) -> Facts:
    """What the definition (of this journey) may name in this organization. Of the templates, only those that it does name."""
    mine = {"organization_id": session.organization_id}
    topics = await session.execute(_TOPICS, mine)
    connections = await session.execute(_CONNECTIONS, mine)
    return Facts(
        templates=await _templates(session, definition),
        topics={id: TopicFact(key, archived) for id, key, archived in topics},
        connections={id: ConnectionFact(channel, is_default) for id, channel, is_default in connections},
        attributes=(await session.execute(_ATTRIBUTES, mine)).scalar_one(),
        segments={row.id: row.rule for row in await session.execute(_SEGMENTS, mine)},
        journeys={id: JourneyFact(published, archived) for id, published, archived in await session.execute(_JOURNEYS, mine)},
        leads=await _leads(session, definition),
        members=frozenset((await session.execute(_MEMBERS, mine)).scalars()),
        journey_id=journey_id,
    )


_NEWEST = text("""
    SELECT DISTINCT ON (v.journey_id) v.journey_id, v.definition
    FROM journey_versions v JOIN journeys j ON j.organization_id = :organization_id AND j.id = v.journey_id AND j.archived_at IS NULL
    WHERE v.organization_id = :organization_id AND v.journey_id = ANY(CAST(:ids AS uuid[])) ORDER BY v.journey_id, v.number DESC""")


async def _leads(session: OrganizationSession, definition: Definition) -> dict[UUID, Set[UUID]]:
    """Of the journeys that the definition leads into without a wait, and those beyond: into which their newest versions lead. One
    statement for each journey on the longest way."""
    found: dict[UUID, Set[UUID]] = {}
    ahead = set(enters_at_once(definition))
    while ahead:
        rows = await session.execute(_NEWEST, {"organization_id": session.organization_id, "ids": list(ahead)})
        found |= dict.fromkeys(ahead, frozenset()) | {row.journey_id: leads_to(Definition.model_validate(row.definition)) for row in rows}
        ahead = {journey_id for led in found.values() for journey_id in led} - found.keys()
    return found


async def _templates(session: OrganizationSession, definition: Definition) -> dict[UUID, TemplateFact]:
    """Each named template with its newest version and the versions that the definition pins."""
    sends = [step for step in definition.steps.values() if isinstance(step, SendStep)]
    bound = {
        "organization_id": session.organization_id,
        "ids": [step.template_id for step in sends],
        "version_ids": [step.template_version_id for step in sends if step.template_version_id],
    }
    found: dict[UUID, TemplateFact] = {}
    for id, channel, archived, version_id, variables in await session.execute(_TEMPLATES, bound):
        before = found.get(id)  # rows of one template come newest version first
        versions = {**(before.versions if before else {})} | ({version_id: frozenset(variables)} if version_id else {})
        found[id] = TemplateFact(channel, archived, before.newest_version_id if before else version_id, versions)
    return found


_TITLE = text("""
    SELECT j.name, v.number FROM journey_versions v JOIN journeys j ON j.id = v.journey_id
    WHERE v.organization_id = :organization_id AND v.id = :id""")


async def title(session: OrganizationSession, version_id: UUID) -> str:
    """What people call the version: `journey "Welcome", version 3`. It must exist."""
    row = (await session.execute(_TITLE, {"organization_id": session.organization_id, "id": version_id})).one()
    return f'journey "{row.name}", version {row.number}'


async def template_contents(session: OrganizationSession, version_ids: Sequence[UUID]) -> dict[UUID, TemplateContent]:
    """What these template versions say."""
    rows = await session.execute(_CONTENTS, {"organization_id": session.organization_id, "ids": list(version_ids)})
    return {id: TemplateContent(channel, subject, html, body) for id, channel, subject, html, body in rows}


async def add(
    session: OrganizationSession, journey: Journey, definition: dict[str, Any], content_hash: str, published_by: UUID | None
) -> JourneyVersion:
    """The next version, made of the journey's draft as it stands. The caller holds the journey's lock (`journeys.get(…, lock=True)`)."""
    newest = await find_newest(session, journey.id)
    row = {
        "id": new_id(),
        "organization_id": session.organization_id,
        "created_at": func.clock_timestamp(),  # the database's, like that of drafts: which came first must be certain
        "journey_id": journey.id,
        "number": newest.number + 1 if newest else 1,
        "definition": definition,
        "content_hash": content_hash,
        "published_by": published_by,
        "revision": journey.revision,
    }
    return (await session.execute(insert(JourneyVersion).values(row).returning(JourneyVersion))).scalar_one()


async def find_newest(session: OrganizationSession, journey_id: UUID) -> JourneyVersion | None:
    """The version published last, or None before the first."""
    statement = select(JourneyVersion).where(*_of(session, journey_id)).order_by(col(JourneyVersion.number).desc()).limit(1)
    return (await session.execute(statement)).scalar_one_or_none()


async def get(session: OrganizationSession, journey_id: UUID, which: int | UUID) -> JourneyVersion:
    """The version with this number or id.

    Raises:
        NotFound: the journey has no such version.
    """
    key = col(JourneyVersion.number) == which if isinstance(which, int) else col(JourneyVersion.id) == which
    found = (await session.execute(select(JourneyVersion).where(*_of(session, journey_id), key))).scalar_one_or_none()
    if found is None:
        raise NotFound("version", which)
    return found


async def by_id(session: OrganizationSession, version_ids: Sequence[UUID]) -> dict[UUID, JourneyVersion]:
    """These versions, of whatever journey."""
    statement = select(JourneyVersion).where(
        col(JourneyVersion.organization_id) == session.organization_id, col(JourneyVersion.id).in_(set(version_ids))
    )
    return {version.id: version for version in (await session.execute(statement)).scalars()}


async def page(session: OrganizationSession, journey_id: UUID, limit: int, after: UUID | None) -> Sequence[JourneyVersion]:
    """Up to `limit` versions, oldest first, beginning after the id `after`."""
    statement = select(JourneyVersion).where(*_of(session, journey_id))
    if after is not None:
        statement = statement.where(col(JourneyVersion.id) > after)
    return (await session.execute(statement.order_by(col(JourneyVersion.id)).limit(limit))).scalars().all()


async def newest_by_journey(session: OrganizationSession, journey_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The number of each journey's newest version; journeys without one are left out."""
    statement = (
        select(col(JourneyVersion.journey_id), func.max(col(JourneyVersion.number)))
        .where(col(JourneyVersion.organization_id) == session.organization_id, col(JourneyVersion.journey_id).in_(journey_ids))
        .group_by(col(JourneyVersion.journey_id))
    )
    return {row[0]: row[1] for row in await session.execute(statement)}


async def newest_ids(session: OrganizationSession, journey_ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """The id of each journey's newest version; journeys without one are left out."""
    query = text("""
        SELECT DISTINCT ON (journey_id) journey_id, id FROM journey_versions
        WHERE organization_id = :organization_id AND journey_id = ANY(CAST(:ids AS uuid[])) ORDER BY journey_id, number DESC""")
    rows = await session.execute(query, {"organization_id": session.organization_id, "ids": list(journey_ids)})
    return {row.journey_id: row.id for row in rows}


def _of(session: OrganizationSession, journey_id: UUID) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (col(JourneyVersion.organization_id) == session.organization_id, col(JourneyVersion.journey_id) == journey_id)
