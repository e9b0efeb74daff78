"""The demo speaks to the product over its public HTTP API only."""

from collections.abc import AsyncIterator
from typing import Any

from deploy.trial.api import Api, Refused


class PublicApi(Api):
    """Adds lists and files to the patient client."""

    async def every(self, path: str, **query: Any) -> AsyncIterator[dict[str, Any]]:
        """All items of all pages."""
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(path, limit=500, **query, **cursor)
            for item in page["items"]:
                yield item
            if page["next_cursor"] is None:
                return
            cursor = {"cursor": page["next_cursor"]}

    async def lines(self, path: str) -> list[str]:
        """A file of lines, such as an export."""
        answer = await self._client.get(path, timeout=300)
        if answer.status_code != 200:
            raise Refused("GET", path, answer.status_code, answer.text)
        return answer.text.splitlines()
