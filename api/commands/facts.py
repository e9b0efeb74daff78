"""What a definition may name in an organization, with what is wrong with its texts."""

from dataclasses import replace
from uuid import UUID

from models.domain.journey.definition import Definition
from models.domain.journey.facts import Facts
from models.rendering import analyze
from models.store import journey_versions
from models.store.session import OrganizationSession
from models.tables.base import utc_now


async def facts_of(session: OrganizationSession, definition: Definition, journey_id: UUID) -> Facts:
    found = await journey_versions.facts(session, definition, journey_id)
    sources = {source for step in definition.steps.values() for source in step.liquid()}
    analyzed = {source: analyze(source, "text").problems for source in sources}
    malformed = {source: problems[0].message for source, problems in analyzed.items() if problems}
    return replace(found, malformed_liquid=malformed, now=utc_now())
