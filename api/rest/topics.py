"""`/v1/topics`"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.dependencies import Caller, authorize
from api.pages import Page, PageOf, page
from api.rest.names import Name
from models.domain.audit import NewEntry
from models.store import audit, topics

router = APIRouter(prefix="/topics", tags=["topics"])

Key = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]


class NewTopic(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"key": "news", "name": "Monthly news"}]})

    key: Key = Field(description="How forms, files and rules name the topic. It never changes.")
    name: Name
    description: str = Field("", max_length=2_000, description="What people agree to; shown to them.")


class TopicChange(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "News, once a month"}]})

    name: Name = Field("", validate_default=False)
    description: str = Field("", max_length=2_000)
    archived: bool = Field(False, description="An archived topic takes no new consent.")


class TopicOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    key: str
    name: str
    description: str
    archived_at: datetime | None
    created_at: datetime


@router.post("", status_code=201)
async def create_topic(caller: Annotated[Caller, authorize("contacts.write")], body: NewTopic) -> TopicOut:
    async with caller.session() as session:
        topic = await topics.create(session, body.key, body.name, body.description)
        await audit.append(session, [NewEntry("topic.created", "topic", str(topic.id), caller.actor)])
    return TopicOut.model_validate(topic)


@router.get("")
async def list_topics(
    caller: Annotated[Caller, authorize("contacts.read")],
    query: PageOf,
    key: Annotated[str | None, Query(max_length=63, description="Only the topic with this key.")] = None,
) -> Page[TopicOut]:
    async with caller.session() as session:
        found = await topics.list_topics(session, query.limit + 1, query.after, key)
    return page([TopicOut.model_validate(topic) for topic in found], [topic.id for topic in found], query)


@router.get("/{topic_id}")
async def read_topic(caller: Annotated[Caller, authorize("contacts.read")], topic_id: UUID) -> TopicOut:
    async with caller.session() as session:
        return TopicOut.model_validate(await topics.get(session, topic_id))


@router.patch("/{topic_id}")
async def change_topic(caller: Annotated[Caller, authorize("contacts.write")], topic_id: UUID, body: TopicChange) -> TopicOut:
    """Change the fields that are given. Archiving is taken back with `archived: false`."""
    async with caller.session() as session:
        topic, changed = await topics.change(session, topic_id, body.model_dump(exclude_unset=True))
        if changed:
            await audit.append(session, [NewEntry("topic.changed", "topic", str(topic.id), caller.actor, {"fields": list(changed)})])
    return TopicOut.model_validate(topic)
