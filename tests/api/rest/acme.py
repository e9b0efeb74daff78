"""What a journey needs around it, put straight into the tables."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.store.session import Database
from models.tables.base import new_id
from models.tables.contacts import Contact, Segment, Topic
from models.tables.messaging import Connection, Template, TemplateVersion
from tests.api.conftest import Person


@dataclass(frozen=True)
class Surroundings:
    contact_id: UUID
    topic_id: UUID
    template_id: UUID
    template_version_id: UUID
    connection_id: UUID

    def welcome(self, **fields: Any) -> dict[str, Any]:
        """A journey that mails, waits and ends."""
        send = {"kind": "send", "template_id": str(self.template_id), "topic_id": str(self.topic_id), "next": "pause"}
        return {"start": "welcome", "steps": {"welcome": {**send, **fields}, "pause": {"kind": "wait", "duration": "P3D"}}}


async def surround(database: Database, person: Person) -> Surroundings:
    mine = person.organization_id
    contact = Contact(organization_id=mine, external_id=new_id().hex, email=f"{new_id().hex}@example.com")
    topic = Topic(organization_id=mine, key="news", name="Product news")
    template = Template(organization_id=mine, name="Welcome", channel="email")
    connection = Connection(organization_id=mine, name="Mail", channel="email", provider="smtp", is_default=True)
    async with database.organization(mine) as session:
        session.add_all([contact, topic, template, connection])
        await session.flush()
        version_id = await add_version(session, mine, template.id, 1, "Hello")
    return Surroundings(contact.id, topic.id, template.id, version_id, connection.id)


async def add_version(session: Any, organization_id: UUID, template_id: UUID, number: int, subject: str) -> UUID:
    version = TemplateVersion(
        organization_id=organization_id,
        template_id=template_id,
        number=number,
        subject=subject,
        text="{{ unsubscribe_url }}",
        variables=["unsubscribe_url"],
        content_hash=f"{number:064}",
    )
    session.add(version)
    await session.flush()
    return version.id


async def add_segment(database: Database, person: Person, rule: dict[str, Any]) -> UUID:
    segment = Segment(organization_id=person.organization_id, name=new_id().hex, rule=rule)
    async with database.organization(person.organization_id) as session:
        session.add(segment)
    return segment.id


async def publish(person: Person, surroundings: Surroundings, name: str = "Welcome") -> str:
    """The id of a journey with one published version."""
    created = await person.client.post("/v1/journeys", json={"name": name, "draft": surroundings.welcome()})
    assert created.status_code == 201, created.text
    published = await person.client.post(f"/v1/journeys/{created.json()['id']}/versions")
    assert published.status_code == 201, published.text
    return str(created.json()["id"])


async def actions(person: Person, database: Database, subject_id: str) -> list[str]:
    """The audit chain's actions about one subject, in order."""
    query = text("SELECT action FROM audit_entries WHERE organization_id = :o AND subject_id = :id ORDER BY sequence")
    async with database.organization(person.organization_id) as session:
        return list((await session.execute(query, {"o": person.organization_id, "id": subject_id})).scalars())


async def reasons(person: Person, database: Database, subject_id: str, action: str) -> list[str | None]:
    """What the audit chain holds as the operators' reasons for an action about one subject, in order."""
    query = text(
        "SELECT details->>'reason' FROM audit_entries WHERE organization_id = :o AND subject_id = :id AND action = :action"
        " ORDER BY sequence"
    )
    async with database.organization(person.organization_id) as session:
        return list((await session.execute(query, {"o": person.organization_id, "id": subject_id, "action": action})).scalars())
