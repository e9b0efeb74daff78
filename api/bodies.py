"""What a request's body and address may be at all, checked before anything reads them."""

import contextlib
import json
import re
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.identity import identify
from api.dependencies import Services
from api.errors import problem
from models.domain.errors import Problem
from models.domain.phrases import json_path

JSON_LIMIT_BYTES: Final = 2 * 1024 * 1024
UPLOAD_LIMIT_BYTES: Final = 512 * 1024 * 1024
# A thousand events with 32 KB of properties each, and their frames. Read only from those who are known.
LARGE_BYTES: Final = {("POST", "/v1/events"): 34 * 1024 * 1024}
# Method and path of the routes that take files, as forms, which pass through the disk. All other bodies are kept in memory.
UPLOADS: Final = frozenset({("POST", "/v1/contact-imports")})
# Only these make the slow check worth while: an escaped NUL or half of a surrogate pair, and numbers JSON does not have.
_SUSPICIOUS = re.compile(rb"\\u0000|\\u[dD][89a-fA-F]|NaN|Infinity|\x00")


class Bodies:
    """Refuses bodies that are too large (413) and text that no database column can hold (422), and files of strangers
    before they are read. `services` are those of the application it belongs to."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self.app = app
        self.services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif "\x00" in scope["path"] or b"%00" in scope["query_string"]:
            await _refuse_text("request")(scope, receive, send)
        elif _is_upload(scope):
            await identify(HTTPConnection(scope), self.services.database)  # raises for strangers; its answer is kept for the route
            await self._pass_upload(scope, receive, send)
        elif (limit := LARGE_BYTES.get((scope["method"], scope["path"]))) is not None:
            await identify(HTTPConnection(scope), self.services.database)
            await self._pass_json(scope, receive, send, limit)
        else:
            await self._pass_json(scope, receive, send, JSON_LIMIT_BYTES)

    async def _pass_json(self, scope: Scope, receive: Receive, send: Send, limit_bytes: int) -> None:
        declared = Headers(scope=scope).get("content-length", "0")
        body = b"" if not declared.isdigit() or int(declared) <= limit_bytes else None
        if body is not None:
            body = await read_body(receive, limit_bytes)
        if body is None:
            await _too_large(limit_bytes)(scope, receive, send)
        elif _SUSPICIOUS.search(body) and (place := _unstorable(body)) is not None:
            await _refuse_text(place)(scope, receive, send)
        else:
            await self.app(scope, replay(body, receive), send)

    async def _pass_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams; when the limit is passed on the way, whatever the route answers becomes a 413."""
        received = 0
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdigit() and int(declared) > UPLOAD_LIMIT_BYTES:
            await _too_large(UPLOAD_LIMIT_BYTES)(scope, receive, send)
            return

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > UPLOAD_LIMIT_BYTES:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            if received <= UPLOAD_LIMIT_BYTES:
                await send(message)

        with contextlib.suppress(_TooLarge):
            await self.app(scope, counted, watched)
        if received > UPLOAD_LIMIT_BYTES:
            await _too_large(UPLOAD_LIMIT_BYTES)(scope, receive, send)


class _TooLarge(Exception):
    pass


def _is_upload(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return kind == "multipart/form-data" and (scope["method"], scope["path"]) in UPLOADS


async def read_body(receive: Receive, limit_bytes: int) -> bytes | None:
    """The whole body, or None when it is larger than the limit."""
    parts: list[bytes] = []
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > limit_bytes:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, then what comes after it."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _unstorable(body: bytes) -> str | None:
    """Where JSON text first holds NUL, half a character or NaN: the field's path, or its object's where that is so of a name. None: it
    does not. Text that is not JSON is for the route to refuse."""
    try:
        document = json.loads(body, parse_constant=_NotANumber)
    except (ValueError, RecursionError):
        return None
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while waiting:
        place, value = waiting.pop()
        match value:
            case dict() if all(map(_is_text, value)):
                waiting += reversed([((*place, name), each) for name, each in value.items()])
            case list():
                waiting += reversed([((*place, index), each) for index, each in enumerate(value)])
            case dict() | _NotANumber():
                return json_path(place) or "body"
            case str() if not _is_text(value):
                return json_path(place) or "body"
    return None


def _is_text(value: str) -> bool:
    """Whether a database column can hold it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in value


class _NotANumber:
    """NaN or an infinity."""

    def __init__(self, name: str) -> None:
        pass


def _too_large(limit_bytes: int) -> ASGIApp:
    return problem(413, "too_large", f"The body is larger than {limit_bytes // 1024**2} MiB.")


def _refuse_text(path: str) -> ASGIApp:
    message = "Leave out NUL characters, unpaired surrogates, NaN and Infinity: they cannot be stored."
    return problem(422, "invalid", message, [Problem(path, "unstorable", message)])
