"""A client of the HTTP API that outlives the deaths of the server."""

import asyncio
import json
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx2

PAUSE = 0.3  # seconds between tries
_AGAIN = (502, 503, 504)


class Refused(Exception):
    """The API said no, and would say so again. Its text is for people: what is wrong with a field has a line of its own."""

    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path}: {status} {_said(body)}")
        self.status = status


def _said(body: str) -> str:
    """What a problem document says; anything else as it is, cut off."""
    try:
        document = json.loads(body)
    except ValueError:
        return body[:500]
    match document:
        case {"title": str(title), "detail": str(detail), "errors": list(errors)}:
            ours = (error for error in errors if isinstance(error, dict) and {"path", "message"} <= error.keys())  # a proxy's have others
            told = [f"{error['path']}: {error['message']}" for error in ours]
            first = title if told and detail == "; ".join(told) else f"{title}: {detail}"
            return "\n  ".join([first, *told])
    return body[:500]


class Away(Exception):
    """The API did not answer for longer than the caller's patience."""


class Api:
    """`patience`: for how many seconds a request is repeated while the server is away. A repeated POST carries the same
    Idempotency-Key, so it is obeyed once. `transport` replaces the network, for tests in one process."""

    def __init__(self, address: str, api_key: str, patience: float = 60, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"}
        self._client = httpx2.AsyncClient(base_url=address, headers=headers, timeout=30, trust_env=False, transport=transport)
        self.patience = patience

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.aclose()

    async def get(self, path: str, **parameters: Any) -> Any:
        return await self._ask("GET", path, {"params": parameters})

    async def post(self, path: str, body: Any = None, *, keyed: bool = True) -> Any:
        """`keyed` False: what the body says has an id of its own."""
        return await self._ask("POST", path, {"json": body, "headers": {"Idempotency-Key": uuid4().hex} if keyed else {}})

    async def put(self, path: str, body: Any) -> Any:
        return await self._ask("PUT", path, {"json": body})

    async def patch(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        return await self._ask("PATCH", path, {"json": body, "headers": headers or {}})

    async def delete(self, path: str) -> None:
        await self._ask("DELETE", path, {})

    async def send_file(self, path: str, name: str, content: bytes, fields: Mapping[str, str]) -> Any:
        """A multipart form with one file in the field `file`."""
        form = {"files": {"file": (name, content, "text/csv")}, "data": dict(fields), "headers": {"Idempotency-Key": uuid4().hex}}
        return await self._ask("POST", path, form | {"timeout": 300})

    async def _ask(self, method: str, path: str, options: Mapping[str, Any]) -> Any:
        deadline = time.monotonic() + self.patience
        while True:
            try:
                answer = await self._client.request(method, path, **options)
            except httpx2.TransportError as error:
                trouble: str = type(error).__name__
            else:
                if answer.status_code < 300:
                    return answer.json() if answer.content else None
                if answer.status_code not in _AGAIN:
                    raise Refused(method, path, answer.status_code, answer.text)
                trouble = str(answer.status_code)
            if time.monotonic() > deadline:
                raise Away(f"{method} {path} was not answered within {self.patience:.0f} s ({trouble})")
            await asyncio.sleep(PAUSE)
