"""An organization with one of everything that the API shows."""

import zlib
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.journey import workflow_id
from models.domain.unsubscribe import Unsubscribe, make_token
from models.settings import Settings
from models.store.session import Database
from models.tables.base import new_id, utc_now
from models.tables.contacts import Suppression
from models.tables.events import Entry
from models.tables.failures import FailureGroup
from models.tables.findings import Finding, WorkflowHistory
from models.tables.messaging import Decision, Delivery, SandboxFault, SandboxMessage
from models.tables.publishing import Approval
from tests.api.conftest import Person
from tests.api.rest import acme

RULE = {"field": "email", "is": "exists"}
CASE = {"name": "gets nothing", "start": "2026-03-02T09:00:00Z", "expected": {"messages": []}}
SMTP = {"name": "Mail server", "host": "127.0.0.1", "port": 1, "security": "none", "sender_address": "a@example.com"}


@dataclass
class World:
    """`ids` by the names that paths and bodies use. `marks` are texts that no stranger may ever be shown."""

    ids: dict[str, str] = field(default_factory=dict)
    marks: set[str] = field(default_factory=set)

    def add(self, name: str, identifier: UUID | str) -> None:
        self.ids[name] = str(identifier)
        self.marks.add(str(identifier))


async def build(database: Database, settings: Settings, person: Person, colleague: Person | None = None) -> World:
    """One of everything, in the person's organization. Needs a Temporal that takes what it is given (`FakeTemporal`).

    `colleague` (or the person) is who `user_id` and `key_id` name.
    """
    world = World()
    around = await acme.surround(database, person)
    world.add("contact_id", around.contact_id)
    world.add("topic_id", around.topic_id)
    world.add("template_id", around.template_id)
    world.add("connection_id", (await _post(person, "/v1/connections", SMTP))["id"])
    world.add("segment_id", await acme.add_segment(database, person, RULE))
    await _over_the_api(person, world, await acme.publish(person, around))
    await _in_the_tables(database, settings, person, world)
    world.add("user_id", (colleague or person).user_id)
    world.add("key_id", (colleague or person).api_key_id)
    world.add("actor_id", person.api_key_id)
    world.marks |= {person.email, person.slug, str(person.organization_id)}
    return world


async def _over_the_api(person: Person, world: World, journey_id: str) -> None:
    world.add("journey_id", journey_id)
    contact = {"contact_id": world.ids["contact_id"]}
    world.add("run_id", (await _post(person, f"/v1/journeys/{journey_id}/runs", contact))["id"])
    world.ids["step_id"] = "welcome"
    world.add("campaign_id", (await _post(person, "/v1/campaigns", {"name": "November", "journey_id": journey_id}))["id"])
    consent = contact | {"topic_id": world.ids["topic_id"], "channel": "email", "status": "granted", "method": "form", "source": "shop"}
    await _post(person, "/v1/consents", [consent])
    event = await _post(person, "/v1/events", {"name": "ordered", "contact_id": world.ids["contact_id"]})
    world.add("event_id", event["items"][0]["id"])
    world.add("plan_id", (await _post(person, f"/v1/journeys/{journey_id}/publish-plans", None))["id"])
    bulk = {"command": "pause", "filter": {"run_ids": [world.ids["run_id"]]}}
    world.add("preview_id", (await _post(person, "/v1/run-operations/previews", bulk))["id"])
    executed = (await _post(person, "/v1/run-operations/previews", bulk))["id"]
    world.add("operation_id", (await _post(person, "/v1/run-operations", {"preview_id": executed, "reason": "asked by phone"}))["id"])
    world.add("case_id", (await _post(person, f"/v1/journeys/{journey_id}/cases", CASE))["id"])
    upload = await person.client.post("/v1/contact-imports", files={"file": ("people.csv", b"email\nada@example.com\n")})
    world.add("import_id", upload.json()["id"])


async def _post(person: Person, path: str, body: Any) -> dict[str, Any]:
    answer = await person.client.post(path, json=body)
    assert answer.status_code in (201, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _in_the_tables(database: Database, settings: Settings, person: Person, world: World) -> None:
    """What only the worker and the sandbox write."""
    mine = person.organization_id
    ids = {name: UUID(identifier) for name, identifier in world.ids.items()}
    address = f"{new_id().hex}@example.com"
    async with database.organization(mine) as session:
        await session.execute(text("DELETE FROM connections WHERE config = '{}'"))  # `surround` leaves one that cannot be shown
        version_id = (await session.execute(text("SELECT version_id FROM runs WHERE id = :id"), {"id": ids["run_id"]})).scalar_one()
        visit: dict[str, Any] = {
            "organization_id": mine,
            "run_id": ids["run_id"],
            "contact_id": ids["contact_id"],
            "step_id": "welcome",
            "visit": 1,
        }
        delivery = Delivery(**visit, journey_id=ids["journey_id"], version_id=version_id, channel="email", purpose="marketing")
        message = SandboxMessage(organization_id=mine, sender="a@b.c", recipient=address, subject="Hello", raw=b"", delivery_id=delivery.id)
        rows: dict[str, Any] = {
            "delivery_id": delivery,
            "message_id": message,
            "fault_id": SandboxFault(organization_id=mine, phase="rcpt", action="refuse", recipient=address),
            "approval_id": Approval(
                organization_id=mine, journey_id=ids["journey_id"], revision=1, content_hash=new_id().hex, requested_by=new_id()
            ),
            "finding_id": Finding(
                organization_id=mine,
                kind="overdue_wake",
                severity="problem",
                subject_kind="workflow",
                subject_id=new_id().hex,
                journey_id=ids["journey_id"],
                cause="It is late.",
                action="Look at it.",
            ),
            "history_id": WorkflowHistory(
                organization_id=mine,
                workflow_id=workflow_id.single_run(mine, ids["run_id"]),
                temporal_run_id=new_id().hex,
                status="completed",
                events=0,
                size_bytes=2,
                sha256=new_id().hex,
                history=zlib.compress(b"{}"),
            ),
            "suppression_id": Suppression(organization_id=mine, channel="email", address_hash=new_id().bytes, reason="manual"),
        }
        session.add_all(rows.values())
        session.add(
            Entry(
                organization_id=mine,
                journey_id=ids["journey_id"],
                version_id=version_id,
                contact_id=ids["contact_id"],
                source="event",
                outcome="refused",
            )
        )
        session.add(
            FailureGroup(
                organization_id=mine,
                fingerprint=(fingerprint := new_id().hex),
                journey_id=ids["journey_id"],
                step_id="welcome",
                failure_class="content",
                reason="policy_refused",
                first_seen_at=utc_now(),
                last_seen_at=utc_now(),
            )
        )
        await session.execute(text("UPDATE runs SET failure_fingerprint = :f WHERE id = :id"), {"f": fingerprint, "id": ids["run_id"]})
        session.add(Decision(**visit, check="consent", round=0, outcome="send", rule_version="1", decided_at=utc_now()))
    for name, row in rows.items():
        world.add(name, row.id)
    world.add("version_id", version_id)
    world.marks |= {address, fingerprint}
    token = Unsubscribe(mine, ids["contact_id"], ids["topic_id"], "email", delivery.id)
    world.ids["token"] = make_token(settings.derive_key("unsubscribe-links"), token)
