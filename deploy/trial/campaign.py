"""Making what a campaign needs over the API, as a person would, and watching it."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.commands.connections import SANDBOX_CONCURRENCY
from deploy.trial.api import Api
from deploy.trial.installation import Installation
from models.domain.journey.run import Phase
from models.sandbox_account import sandbox_password, sandbox_username

HTML = (
    "<h1>Hello {{ contact.first_name | default: 'there' }}</h1>\n"
    + "<p>This week's offers are waiting for you, and some of them are good ones.</p>\n" * 40
    + '<p><a href="{{ unsubscribe_url }}">Unsubscribe</a></p>'
)
RESTING = (Phase.COMPLETED, Phase.EXITED, Phase.CANCELLED, Phase.NEEDS_ATTENTION)  # nothing more happens by itself


class TooSlow(Exception):
    """A campaign did not come to rest in time; the message holds how far it came."""


@dataclass(frozen=True)
class Made:
    """A published journey. `subjects` by send step: what its messages are recognised by."""

    journey_id: str
    subjects: Mapping[str, str]


async def make_topic(api: Api, key: str) -> str:
    return str((await api.post("/v1/topics", {"key": key, "name": key.title()}))["id"])


async def make_connection(
    api: Api,
    installation: Installation,
    name: str,
    *,
    discard: bool = False,
    rate_per_second: float | None = None,
    concurrency: int = SANDBOX_CONCURRENCY,
) -> str:
    """A connection to the installation's own inbox, with as many messages in the air as the product's own has.
    `discard`: the inbox counts its messages and throws them away."""
    host, _, port = installation.described["sandbox_smtp"].rpartition(":")
    settings, organization_id = installation.settings(), installation.organization_id
    wanted = {
        "name": name,
        "host": host,
        "port": int(port),
        "security": "starttls",
        "username": sandbox_username(organization_id, discard=discard),
        "password": sandbox_password(settings, organization_id),
        "sender_address": "news@example.com",
        "sender_name": "Trial",
        "rate_per_second": rate_per_second,
        "concurrency": concurrency,
    }
    return str((await api.post("/v1/connections", wanted))["id"])


async def publish_journey(
    api: Api, name: str, topic_id: str, connection_id: str, sends: int, wait: str | None, *, event: str | None = None
) -> Made:
    """`sends` marketing messages, one after the other, with `wait` (ISO 8601) between two of them, or the wait for an `event` of this
    name. Every message has a subject of its own."""
    subjects = {f"send{number}": f"{name}, part {number}" for number in range(1, sends + 1)}
    templates = [await _template(api, subject) for subject in subjects.values()]
    draft = {"language": 1, "start": "send1", "steps": _steps(templates, topic_id, connection_id, wait, event)}
    journey_id = (await api.post("/v1/journeys", {"name": name, "draft": draft}))["id"]
    await api.post(f"/v1/journeys/{journey_id}/versions")
    # Who kills servers in the middle of a message makes uncertain outcomes, which would brake a campaign that has only just begun.
    await api.patch(f"/v1/journeys/{journey_id}/settings", {"brake": {"enabled": False}})
    return Made(journey_id, subjects)


async def _template(api: Api, subject: str) -> str:
    body = {"name": subject, "channel": "email", "subject": subject, "html": HTML}
    return str((await api.post("/v1/templates", body))["id"])


def _steps(templates: Sequence[str], topic_id: str, connection_id: str, wait: str | None, event: str | None) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    waits = wait is not None or event is not None
    for number, template_id in enumerate(templates, 1):
        last = number == len(templates)
        onwards = None if last else f"send{number + 1}"
        send = {"kind": "send", "template_id": template_id, "topic_id": topic_id, "connection_id": connection_id}
        steps[f"send{number}"] = send | {"next": f"wait{number}" if waits and not last else onwards}
        if waits and not last:
            steps[f"wait{number}"] = _wait(wait, event, onwards)
    return steps


def _wait(duration: str | None, event: str | None, onwards: str | None) -> dict[str, Any]:
    if event is not None:
        return {"kind": "wait_for", "events": [{"event": event, "next": onwards}]}
    return {"kind": "wait", "duration": duration, "next": onwards}


async def launch(api: Api, name: str, journey_id: str, page_size: int | None = None, segment_id: str | None = None) -> str:
    wanted = {"name": name, "journey_id": journey_id, "page_size": page_size, "segment_id": segment_id}
    return str((await api.post("/v1/campaigns", wanted))["id"])


async def until_at_rest(api: Api, campaign_id: str, seconds: float, every: float = 0.5) -> dict[str, Any]:
    """The campaign, once each of its runs is finished or waits for a person.

    Raises:
        TooSlow: it was not within `seconds`.
    """
    return await _until(api, campaign_id, RESTING, "at rest", seconds, every)


async def until_all_wait(api: Api, campaign_id: str, seconds: float, every: float = 0.5) -> dict[str, Any]:
    """The campaign, once each of its runs waits for time or for an event. Raises TooSlow."""
    return await _until(api, campaign_id, (Phase.WAITING,), "waiting", seconds, every)


async def _until(api: Api, campaign_id: str, phases: Sequence[Phase], word: str, seconds: float, every: float) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while True:
        campaign: dict[str, Any] = await api.get(f"/v1/campaigns/{campaign_id}")
        if _all_in(campaign, phases):
            return campaign
        if time.monotonic() > deadline:
            runs = campaign["progress"]["runs"]
            raise TooSlow(f"The campaign was not {word} within {seconds:.0f} s: {runs} of {campaign['audience']}")
        await asyncio.sleep(every)


def at_rest(campaign: Mapping[str, Any]) -> bool:
    return _all_in(campaign, RESTING)


def _all_in(campaign: Mapping[str, Any], phases: Sequence[Phase]) -> bool:
    runs = campaign["progress"]["runs"]
    return campaign["audience"] is not None and sum(runs[phase] for phase in phases) == campaign["audience"]
