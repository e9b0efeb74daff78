"""Comparing versions of a journey with each other, and with its draft."""

from uuid import UUID

from api.commands.journeys import facts_of
from api.dependencies import Caller
from models.domain.errors import Unpublishable
from models.domain.journey.check import parse
from models.domain.journey.content_hash import freeze_known, template_version_ids
from models.domain.journey.definition import Definition
from models.domain.journey.difference import Difference, Side, difference
from models.store import journey_versions, journeys
from models.store.session import OrganizationSession


async def between(caller: Caller, journey_id: UUID, before: int, after: int | None) -> Difference:
    """What is different in the version `after` (None: the draft, frozen as far as it can be) from the version `before`.

    Raises:
        NotFound: no such journey or version.
        Unpublishable: the draft is not well formed, so there is nothing to compare.
    """
    async with caller.session() as session:
        await journeys.get(session, journey_id)
        old = await _version(session, journey_id, before)
        return difference(old, await _draft(session, journey_id) if after is None else await _version(session, journey_id, after))


async def _version(session: OrganizationSession, journey_id: UUID, number: int) -> Side:
    version = await journey_versions.get(session, journey_id, number)
    return await _side(session, Definition.model_validate(version.definition))


async def _draft(session: OrganizationSession, journey_id: UUID) -> Side:
    definition = parse((await journeys.get(session, journey_id)).draft)
    if isinstance(definition, list):
        raise Unpublishable(definition, "The draft is not well formed; mend it, then compare.")
    return await _side(session, freeze_known(definition, await facts_of(session, definition, journey_id)))


async def _side(session: OrganizationSession, definition: Definition) -> Side:
    return Side(definition, await journey_versions.template_contents(session, template_version_ids(definition)))
