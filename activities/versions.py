"""What never changes: published definitions and template versions, read once per worker process."""

from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Generic, TypeVar
from uuid import UUID

from models.domain.errors import NotFound
from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.definition import Definition
from models.store import journey_versions
from models.store.session import OrganizationSession

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Newest(Generic[Key, Value]):
    """A dictionary that forgets what was not used for longest."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: Key, value: Value) -> Value:
        self._values[key] = value
        if len(self._values) > self._size:
            self._values.popitem(last=False)
        return value


class Versions:
    """Shared by all activities of a process. Keys include the organization: one never reads another's."""

    def __init__(self, size: int = 512) -> None:
        self._definitions: Newest[tuple[UUID, UUID], Definition] = Newest(size)
        self._templates: Newest[tuple[UUID, UUID], TemplateContent] = Newest(size)

    async def definition(self, session: OrganizationSession, version_id: UUID) -> Definition:
        """The published definition.

        Raises:
            NotFound: no such version in this organization.
        """
        key = (session.organization_id, version_id)
        if (cached := self._definitions.get(key)) is not None:
            return cached
        found = (await journey_versions.by_id(session, [version_id])).get(version_id)
        if found is None:
            raise NotFound("version", version_id)
        return self._definitions.put(key, Definition.model_validate(found.definition))

    async def templates(self, session: OrganizationSession, version_ids: Collection[UUID]) -> dict[UUID, TemplateContent]:
        """What these template versions say; those that do not exist are left out."""
        mine = session.organization_id
        found = {id: content for id in version_ids if (content := self._templates.get((mine, id))) is not None}
        missing = [id for id in version_ids if id not in found]
        if missing:
            for id, content in (await journey_versions.template_contents(session, missing)).items():
                found[id] = self._templates.put((mine, id), content)
        return found
