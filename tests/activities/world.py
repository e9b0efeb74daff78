"""An organization with a published journey, contacts and a provider that does as it is told."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from activities.contracts.payload import Scope
from activities.contracts.sending import SendOutcome
from activities.contracts.steps import StepVisit, VisitBatch
from activities.providers.port import ABORTED, OutgoingMessage, Provider, ProviderAnswer, Transmit
from models.domain.audit import SYSTEM
from models.domain.journey.definition import Definition
from models.domain.schedule import stored
from models.settings import Settings
from models.store import connections, consents
from models.store.connections import NewConnection, SendingConnection
from models.store.consents import NewConsent
from models.store.session import Database
from models.store.suppressions import address_hash, suppress
from models.tables.base import new_id

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SMTP = {"host": "127.0.0.1", "port": 1, "security": "none", "sender_address": "hello@acme.example", "sender_name": "Acme"}


@dataclass
class World:
    """One organization. Ids are fresh, so that tests share a database."""

    database: Database
    settings: Settings
    organization_id: UUID = field(default_factory=new_id)
    topic_id: UUID = field(default_factory=new_id)
    template_id: UUID = field(default_factory=new_id)
    template_version_id: UUID = field(default_factory=new_id)
    journey_id: UUID = field(default_factory=new_id)
    version_id: UUID = field(default_factory=new_id)
    connection_id: UUID = field(default_factory=new_id)
    campaign_id: UUID | None = None
    contacts: dict[UUID, UUID] = field(default_factory=dict)  # run to contact

    # --- building ----------------------------------------------------------------------------------------------------

    async def build(
        self, *, html: str = "<p>Hello {{ contact.first_name }}</p>", rate: float | None = None, **organization: Any
    ) -> "World":
        """Organization, topic, template, connection, journey and its version with the steps of `definition`."""
        await self.sql(
            """INSERT INTO organizations (id, name, slug, status, timezone, quiet_hours, attribute_schema)
               VALUES (:id, 'Acme', :slug, 'active', :timezone, CAST(:quiet_hours AS jsonb), '{}')""",
            id=self.organization_id,
            slug=str(self.organization_id),
            timezone=organization.get("timezone", "UTC"),
            quiet_hours=json.dumps(organization.get("quiet_hours", {})),
        )
        await self.sql(
            "INSERT INTO topics (id, organization_id, key, name, description) VALUES (:id, :o, 'news', 'News', '')", id=self.topic_id
        )
        await self.sql(
            "INSERT INTO templates (id, organization_id, name, channel) VALUES (:id, :o, 'Welcome', 'email')", id=self.template_id
        )
        await self.sql(
            """INSERT INTO template_versions (id, organization_id, template_id, number, subject, html, text, variables, content_hash)
               VALUES (:id, :o, :template_id, 1, 'Welcome', :html, 'Hello', '[]', '')""",
            id=self.template_version_id,
            template_id=self.template_id,
            html=html,
        )
        async with self.database.organization(self.organization_id) as session:
            new = NewConnection("Mail", "email", "fake", SMTP, None, True, rate)
            await connections.create(session, new, self.settings.derive_key("connection-secrets"), self.connection_id)
        await self.sql(
            "INSERT INTO journeys (id, organization_id, name, draft, revision) VALUES (:id, :o, 'Welcome', '{}', 1)", id=self.journey_id
        )
        await self.sql(
            """INSERT INTO journey_versions (id, organization_id, journey_id, number, definition, content_hash)
               VALUES (:id, :o, :journey_id, 1, CAST(:definition AS jsonb), '')""",
            id=self.version_id,
            journey_id=self.journey_id,
            definition=self.definition().model_dump_json(),
        )
        return self

    def definition(self) -> Definition:
        send = {"kind": "send", "template_id": self.template_id, "template_version_id": self.template_version_id}
        steps = {
            "news": {**send, "purpose": "marketing", "topic_id": self.topic_id},
            "receipt": {**send, "purpose": "transactional"},
            "split": {
                "kind": "branch",
                "conditions": [
                    {"when": {"field": "country", "operator": "equals", "value": "DE"}, "next": None},
                    {"when": {"field": "attributes.plan", "operator": "equals", "value": "gold"}, "next": None},
                ],
            },
        }
        return Definition.model_validate({"start": "news", "steps": steps})

    async def contact(self, *, consent: str | None = "granted", **values: Any) -> UUID:
        """A new contact with its consent for the topic, and a run of it. Answers the run's id."""
        contact_id, run_id = new_id(), new_id()
        given = {"email": f"{contact_id}@example.com", "first_name": "Ada", "timezone": "UTC", "country": None, "attributes": {}, **values}
        await self.sql(
            """INSERT INTO contacts (id, organization_id, email, first_name, timezone, country, attributes)
               VALUES (:id, :o, :email, :first_name, :timezone, :country, CAST(:attributes AS jsonb))""",
            **{**given, "id": contact_id, "attributes": json.dumps(given["attributes"])},
        )
        await self.sql(
            """INSERT INTO runs (id, organization_id, journey_id, version_id, campaign_id, contact_id, workflow_id, page, status,
                                 sequence, variables)
               VALUES (:id, :o, :journey_id, :version_id, :campaign_id, :contact_id, :workflow_id, 0, 'active', 0, '{}')""",
            id=run_id,
            journey_id=self.journey_id,
            version_id=self.version_id,
            campaign_id=self.campaign_id,
            contact_id=contact_id,
            workflow_id=f"test/{run_id}",
        )
        self.contacts[run_id] = contact_id
        if consent is not None:
            await self.consent(run_id, consent)
        return run_id

    async def people(self, count: int) -> list[UUID]:
        return [await self.contact() for _ in range(count)]

    async def campaign(self, **values: Any) -> UUID:
        """A campaign that later contacts' runs belong to."""
        self.campaign_id = new_id()
        await self.sql(
            """INSERT INTO campaigns (id, organization_id, name, journey_id, version_id, segment_rule, exclusion_rule, schedule,
                                      audience_at, status, page_size)
               VALUES (:id, :o, 'Spring', :journey_id, :version_id, CAST(:rule AS jsonb), CAST(:exclusion AS jsonb),
                       CAST(:schedule AS jsonb), :audience_at, :status, :page_size)""",
            id=self.campaign_id,
            journey_id=self.journey_id,
            version_id=self.version_id,
            rule=json.dumps(values["rule"]) if values.get("rule") else None,
            exclusion=json.dumps(values["exclusion"]) if values.get("exclusion") else None,
            schedule=json.dumps(stored(values["timing"])) if values.get("timing") else None,
            audience_at=values.get("audience_at", "start"),
            status=values.get("status", "starting"),
            page_size=values.get("page_size", 200),
        )
        return self.campaign_id

    # --- what people do meanwhile --------------------------------------------------------------------------------------

    async def change_connection(self, **config: Any) -> None:
        """Somebody mends the connection: its config is another, and with it its revision."""
        async with self.database.organization(self.organization_id) as session:
            stored = await connections.get(session, self.connection_id)
            new = NewConnection("Mail", "email", "fake", {**stored.config, **config}, "new", True, stored.rate_per_second)
            await connections.change(session, stored, new, self.settings.derive_key("connection-secrets"))

    async def consent(self, run_id: UUID, status: Any) -> None:
        async with self.database.organization(self.organization_id) as session:
            line = NewConsent(self.contacts[run_id], self.topic_id, "email", status, "form", "test", {}, SYSTEM, datetime.now(UTC))
            await consents.record(session, [line])

    async def suppress(self, run_id: UUID) -> None:
        email = await self.one("SELECT email FROM contacts WHERE id = :id", id=self.contacts[run_id])
        hashed = address_hash(self.settings.derive_key("suppressions"), "email", f" {email.upper()} ")
        async with self.database.organization(self.organization_id) as session:
            await suppress(session, "email", [hashed], "manual", "test", SYSTEM)

    async def forget(self, run_id: UUID) -> None:
        await self.sql("DELETE FROM runs WHERE id = :id", id=run_id)
        await self.sql("DELETE FROM contacts WHERE id = :id", id=self.contacts[run_id])

    # --- looking -------------------------------------------------------------------------------------------------------

    async def sql(self, statement: str, **values: Any) -> Sequence[Any]:
        async with self.database.organization(self.organization_id) as session:
            result: Any = await session.execute(text(statement), {"o": self.organization_id, **values})
            return result.mappings().all() if result.returns_rows else []

    async def one(self, statement: str, **values: Any) -> Any:
        rows = await self.sql(statement, **values)
        return next(iter(rows[0].values()))

    async def delivery(self, run_id: UUID) -> Any:
        (row,) = await self.sql("SELECT * FROM deliveries WHERE run_id = :id", id=run_id)
        return row

    async def actions(self, prefix: str = "") -> list[str]:
        """The audit chain's actions, in order."""
        rows = await self.sql("SELECT action FROM audit_entries WHERE action LIKE :prefix ORDER BY sequence", prefix=f"{prefix}%")
        return [row["action"] for row in rows]

    # --- asking --------------------------------------------------------------------------------------------------------

    @property
    def scope(self) -> Scope:
        return Scope(
            organization_id=self.organization_id, journey_id=self.journey_id, version_id=self.version_id, campaign_id=self.campaign_id
        )

    def batch(self, run_ids: Sequence[UUID], step_id: str = "news", round: int = 0, now: datetime = NOON) -> VisitBatch:
        visits = [StepVisit(run_id=run_id, contact_id=self.contacts[run_id], step_id=step_id, round=round) for run_id in run_ids]
        return VisitBatch(scope=self.scope, now=now, visits=visits)


class Crash(BaseException):
    """The process is gone."""


Behaviour = Callable[[OutgoingMessage, Transmit], Awaitable[ProviderAnswer]]


class FakeProvider:
    """Accepts everything, unless told otherwise; remembers what it was given and what it accepted."""

    def __init__(self) -> None:
        self.called: list[OutgoingMessage] = []
        self.accepted: list[OutgoingMessage] = []
        self.before: list[Callable[[OutgoingMessage], Awaitable[None]]] = []  # between the claim and the fence
        self.keeping: list[Callable[[OutgoingMessage], Awaitable[None]]] = []  # between the fence and the message's first byte
        self.after: list[Callable[[OutgoingMessage], Awaitable[None]]] = []  # between the provider's yes and our record
        self._accepted_one = asyncio.Event()
        self.answer: ProviderAnswer | Callable[[OutgoingMessage], ProviderAnswer] = ProviderAnswer(SendOutcome.ACCEPTED, None, None, "id-1")

    async def has_accepted(self, count: int) -> None:
        while len(self.accepted) < count:
            self._accepted_one.clear()
            await self._accepted_one.wait()

    async def of(self, connection: SendingConnection) -> Provider:
        return self

    async def send(self, message: OutgoingMessage, transmit: Transmit) -> ProviderAnswer:
        self.called.append(message)
        for step in self.before:
            await step(message)
        if not await transmit():
            return ProviderAnswer(ABORTED)
        for step in self.keeping:
            await step(message)
        if not await transmit():
            return ProviderAnswer(ABORTED)
        answer = self.answer(message) if callable(self.answer) else self.answer
        if answer.outcome is SendOutcome.ACCEPTED:
            self.accepted.append(message)
            self._accepted_one.set()
        await asyncio.sleep(0)
        for step in self.after:
            await step(message)
        return answer

    async def close(self) -> None:
        return None
