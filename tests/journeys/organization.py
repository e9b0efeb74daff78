"""What a tester says to the public API, in few words."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import UUID

from httpx2 import AsyncClient, Response

Document = dict[str, Any]
PATIENCE = float(os.environ.get("LEADSTATS_TEST_PATIENCE", "240"))  # seconds of a busy machine's time; only a test that fails takes them


class Organization:
    def __init__(
        self, organization_id: UUID, client: AsyncClient, real_time: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self.real_time = real_time  # workflows started within keep real time
        self.id = organization_id
        self.client = client
        self._names = 0

    async def call(self, method: str, path: str, body: Any = None, **kwargs: Any) -> Response:
        response = await self.client.request(method, f"/v1{path}", json=body, **kwargs)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text[:600]}"
        return response

    async def get(self, path: str, **query: Any) -> Document:
        found: Document = (await self.call("GET", path, params=query)).json()
        return found

    async def post(self, path: str, body: Any) -> Document:
        made: Document = (await self.call("POST", path, body)).json()
        return made

    async def every(self, path: str, **query: Any) -> list[Document]:
        """All items of all pages."""
        items: list[Document] = []
        cursor = None
        while True:
            found = await self.get(path, limit=500, **query, **({"cursor": cursor} if cursor else {}))
            items += found["items"]
            cursor = found["next_cursor"]
            if cursor is None:
                return items

    def name(self, kind: str) -> str:
        self._names += 1
        return f"{kind} {self._names}"

    # --- people ----------------------------------------------------------------------------------------------------

    async def contact(self, **fields: Any) -> str:
        self._names += 1
        given = {"email": f"person{self._names}@example.com", "first_name": f"Person {self._names}", **fields}
        return str((await self.post("/contacts", {name: value for name, value in given.items() if value is not None}))["id"])

    async def contacts(self, count: int, **fields: Any) -> list[str]:
        return [await self.contact(**fields) for _ in range(count)]

    async def import_contacts(self, emails: Sequence[str], tags: str = "") -> None:
        """`tags` as in a file: `a;b`."""
        file = "\n".join(["email,tags", *(f"{email},{tags}" for email in emails)]).encode()
        upload = {"file": ("contacts.csv", file, "text/csv")}
        report = (await self.call("POST", "/contact-imports", files=upload, data={"options": "{}"})).json()
        assert report["created"] == len(emails), report["refusals"][:3]

    async def topic(self, key: str = "news") -> str:
        return str((await self.post("/topics", {"key": key, "name": key.title()}))["id"])

    async def consent(self, contacts: Sequence[str], topic_id: str, status: str = "granted") -> None:
        line = {"topic_id": topic_id, "channel": "email", "status": status, "method": "form", "source": "https://example.com/join"}
        if contacts:
            await self.post("/consents", [{**line, "contact_id": contact_id} for contact_id in contacts])

    # --- journeys --------------------------------------------------------------------------------------------------

    async def template(self, subject: str = "Hello", text: str = "Hello {{ contact.first_name }}. Leave: {{ unsubscribe_url }}") -> str:
        made = await self.post(
            "/templates", {"name": self.name("Template"), "channel": "email", "subject": subject, "text": text, "html": f"<p>{text}</p>"}
        )
        return str(made["id"])

    async def publish(self, start: str, steps: Document, **rules: Any) -> str:
        """`rules`: entry, exits, goals, …"""
        draft = {"language": 1, "start": start, "steps": steps, **rules}
        journey = await self.post("/journeys", {"name": self.name("Journey"), "draft": draft})
        await self.post(f"/journeys/{journey['id']}/versions", None)
        return str(journey["id"])

    async def without_brake(self, journey_id: str) -> str:
        """The same journey, which however much fails does not pause by itself."""
        await self.call("PATCH", f"/journeys/{journey_id}/settings", {"brake": {"enabled": False}})
        return journey_id

    async def send_wait_send(self, topic_id: str, wait: str = "PT1H") -> str:
        template_id = await self.template()
        send = {"kind": "send", "template_id": template_id, "topic_id": topic_id}
        return await self.publish(
            "welcome",
            {
                "welcome": {**send, "next": "pause"},
                "pause": {"kind": "wait", "duration": wait, "next": "reminder"},
                "reminder": send,
            },
        )

    async def launch(self, journey_id: str, **fields: Any) -> str:
        """In real time: a campaign's workflow looks again and again, and with virtual time it would do nothing else."""
        with self.real_time():
            return str((await self.post("/campaigns", {"name": self.name("Campaign"), "journey_id": journey_id, **fields}))["id"])

    async def campaign(self, campaign_id: str) -> Document:
        """With the phases and states that occur, leaving out the zeros."""
        found = await self.get(f"/campaigns/{campaign_id}")
        for counts in ("runs", "deliveries", "outcomes", "refusals"):
            found["progress"][counts] = {name: count for name, count in found["progress"][counts].items() if count}
        return found

    async def start_run(self, journey_id: str, contact_id: str, **fields: Any) -> str:
        return str((await self.post(f"/journeys/{journey_id}/runs", {"contact_id": contact_id, **fields}))["id"])

    async def run(self, run_id: str) -> Document:
        return await self.get(f"/runs/{run_id}")

    async def address(self, run: Document) -> str:
        """Of the run's contact."""
        return str((await self.get(f"/contacts/{run['contact_id']}"))["email"])

    async def timeline(self, run_id: str) -> list[Document]:
        return list((await self.get(f"/runs/{run_id}/timeline"))["entries"])

    # --- what came of it -------------------------------------------------------------------------------------------

    async def mails(self) -> Counter[str]:
        """How many messages each address received."""
        return Counter(message["recipient"] for message in await self.every("/sandbox/messages"))

    async def mail_count(self) -> Document:
        return {"mails": sum((await self.mails()).values())}

    async def until(
        self, look: Callable[[], Awaitable[Document]], condition: Callable[[Document], bool], seconds: float = PATIENCE
    ) -> Document:
        found: Document = {}
        try:
            async with asyncio.timeout(seconds):
                while not condition(found := await look()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s it was still {found}") from None
        return found

    async def until_campaign(self, campaign_id: str, status: str = "completed") -> Document:
        return await self.until(lambda: self.campaign(campaign_id), lambda campaign: campaign["status"] == status)

    async def until_run(self, run_id: str, *statuses: str) -> Document:
        return await self.until(lambda: self.run(run_id), lambda run: run["status"] in statuses)
