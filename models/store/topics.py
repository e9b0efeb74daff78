"""Topics: what one subscribes to. Their keys never change: forms and files name them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from models.domain.errors import Conflict, NotFound
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.contacts import Topic


async def create(session: OrganizationSession, key: str, name: str, description: str) -> Topic:
    """The new topic.

    Raises:
        Conflict: another topic has this key.
    """
    row = Topic(organization_id=session.organization_id, key=key, name=name, description=description)
    query = insert(Topic).values(**row.model_dump()).on_conflict_do_nothing().returning(Topic)
    created = (await session.scalars(query)).one_or_none()
    if created is None:
        raise Conflict(f"There is a topic with the key {key} already; choose another key or change that one.")
    return created


async def list_topics(session: OrganizationSession, limit: int, after: UUID | None = None, key: str | None = None) -> Sequence[Topic]:
    """At most `limit` topics, archived ones included, oldest first, after the id `after`."""
    query = select(Topic).where(col(Topic.organization_id) == session.organization_id).order_by(col(Topic.id)).limit(limit)
    if after is not None:
        query = query.where(col(Topic.id) > after)
    if key is not None:
        query = query.where(col(Topic.key) == key)
    return (await session.scalars(query)).all()


async def get(session: OrganizationSession, topic_id: UUID) -> Topic:
    """Raises NotFound."""
    query = select(Topic).where(col(Topic.id) == topic_id, col(Topic.organization_id) == session.organization_id)
    found = (await session.scalars(query)).one_or_none()
    if found is None:
        raise NotFound("topic", topic_id)
    return found


async def change(session: OrganizationSession, topic_id: UUID, values: Mapping[str, Any]) -> tuple[Topic, tuple[str, ...]]:
    """The topic with `name`, `description` or `archived` as given, and the names of what is different now. Raises NotFound."""
    topic = await get(session, topic_id)
    wanted = dict(values)
    if "archived" in wanted:
        archived = wanted.pop("archived")
        wanted["archived_at"] = (topic.archived_at or utc_now()) if archived else None
    changed = tuple(sorted(name for name, value in wanted.items() if getattr(topic, name) != value))
    for name in changed:
        setattr(topic, name, wanted[name])
    await session.flush()
    return topic, changed


@dataclass(frozen=True)
class TopicRef:
    id: UUID
    archived: bool


_FIND = text("SELECT id, key, archived_at IS NOT NULL FROM topics WHERE organization_id = :o AND (key = ANY(:keys) OR id = ANY(:ids))")


async def find(session: OrganizationSession, keys: Sequence[str], ids: Sequence[UUID]) -> dict[str | UUID | None, TopicRef]:
    """Those of the topics that exist, by key and by id."""
    parameters = {"o": session.organization_id, "keys": list(set(keys)), "ids": list(set(ids))}
    found: dict[str | UUID | None, TopicRef] = {}
    for identifier, key, archived in await session.execute(_FIND, parameters):
        found[identifier] = found[key] = TopicRef(identifier, archived)
    return found
