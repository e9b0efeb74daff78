"""Setting the demo up, over the API: people, what they agreed to, mails, a published journey, a campaign."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.demo.api import PublicApi
from deploy.demo.journey import ATTRIBUTES, MAILS, definition
from deploy.demo.people import TOPICS, Person

AT_ONCE = 500  # consents in one request
Say = Callable[[str], None]


@dataclass(frozen=True)
class Scene:
    """`external_ids` by contact id."""

    campaign_id: str
    journey_id: str
    external_ids: dict[str, str]


class NotTaken(Exception):
    """The product did not take the demo's data as it should."""


async def set_scene(api: PublicApi, people: Sequence[Person], file: bytes, say: Say) -> Scene:
    """Everything exists and the campaign to all contacts is launched. `say` is told each thing done.

    Raises:
        NotTaken: rows of the file were refused.
        deploy.trial.api.Refused: the API said no.
    """
    external_ids = await _bring_people(api, people, file, say)
    contacts = {external_id: contact_id for contact_id, external_id in external_ids.items()}
    topics = {key: (await api.post("/v1/topics", {"key": key, "name": name}))["id"] for key, name in TOPICS.items()}
    lines = await _record_consents(api, people, contacts)
    suppressed = await _suppress(api, people)
    say(f"recorded {lines:,} consents and withdrawals on {len(topics)} topics, and {suppressed} suppressed addresses")
    journey_id = await _publish(api, topics)
    say(f"published the journey Welcome: {len(MAILS)} mails, two waits and a branch")
    campaign = await api.post("/v1/campaigns", {"name": "Welcome everybody", "journey_id": journey_id})
    say("launched it to everybody")
    return Scene(campaign["id"], journey_id, external_ids)


async def _bring_people(api: PublicApi, people: Sequence[Person], file: bytes, say: Say) -> dict[str, str]:
    schema = {name: {"type": kind} for name, kind in ATTRIBUTES.items()}
    # The demo ends in seconds at any hour of the day, so nobody is protected by quiet hours.
    await api.patch("/v1/organization", {"attribute_schema": schema, "quiet_hours": {"email": None}})
    mapping = {name: f"attributes.{name}" for name in ATTRIBUTES}
    report = await api.send_file("/v1/contact-imports", "contacts.csv", file, {"options": json.dumps({"mapping": mapping})})
    if (report["created"], report["refused"]) != (len(people), 0):
        raise NotTaken(
            f"of {len(people)} contacts {report['created']} were created and {report['refused']} refused: {report['refusals'][:3]}"
        )
    say(f"imported {report['created']:,} contacts from contacts.csv")
    return {contact["id"]: contact["external_id"] async for contact in api.every("/v1/contacts")}


async def _record_consents(api: PublicApi, people: Sequence[Person], contacts: dict[str, str]) -> int:
    lines = [line for person in people for line in _consent_lines(person, contacts[person.external_id])]
    for first in range(0, len(lines), AT_ONCE):
        await api.post("/v1/consents", lines[first : first + AT_ONCE])
    return len(lines)


def _consent_lines(person: Person, contact_id: str) -> Iterator[dict[str, Any]]:
    for statement in person.statements():
        granted = statement.status == "granted"
        yield {
            "contact_id": contact_id,
            "topic": statement.topic,
            "channel": "email",
            "status": statement.status,
            "method": person.method if granted else "preferences",
            "source": person.source if granted else "https://shop.example.com/preferences",
            "evidence": {"file": "contacts.csv", "row": person.external_id},
            "occurred_at": statement.at,
        }


async def _suppress(api: PublicApi, people: Sequence[Person]) -> int:
    opted_out = [person for person in people if person.opted_out and person.email]
    addresses = [{"address": person.written_email, "channel": "email", "reason": person.opted_out} for person in opted_out]
    for first in range(0, len(addresses), 8):
        await asyncio.gather(*(api.post("/v1/suppressions", address) for address in addresses[first : first + 8]))
    return len(addresses)


async def _publish(api: PublicApi, topics: dict[str, str]) -> str:
    """The journey's id."""
    templates = {step: (await api.post("/v1/templates", mail.template(step)))["id"] for step, mail in MAILS.items()}
    journey: dict[str, Any] = await api.post("/v1/journeys", {"name": "Welcome", "draft": definition(templates, topics)})
    await api.post(f"/v1/journeys/{journey['id']}/versions")
    return str(journey["id"])
