"""The outermost layer: an id per request, and no error leaves without being a problem document."""

import re
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import answer

REQUEST_ID: Final = "X-Request-Id"
_ACCEPTABLE = re.compile(r"[A-Za-z0-9_.-]{8,64}")


class Boundary:
    """Gives every answer the header `X-Request-Id` (the caller's own, when it is 8 to 64 plain characters)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        identifier = _request_id(Headers(scope=scope))

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID] = identifier
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if started:  # half an answer is gone: breaking the connection is the only honest end
                raise
            await answer(error)(scope, receive, send_with_id)


def _request_id(headers: Headers) -> str:
    given = headers.get(REQUEST_ID, "")
    return given if _ACCEPTABLE.fullmatch(given) else uuid4().hex
