"""`Idempotency-Key` on every POST under /v1 but the login: the same key gives the same answer, and no second thing.

The key is reserved before the route runs and settled with its answer; answers are kept for 24 hours, sealed, because
some hold a secret that is shown once. Only the answer of a request that did something is kept: after a refusal or a server
error the key is free, and the request may be corrected or repeated. When the process dies in between, the key answers 409
for some minutes and is free again then: what the request did may by then have been committed, so commands that must not
double have an identity of their own in the database.
"""

import asyncio
import base64
import hashlib
import json
import logging
import re
from email.message import Message as ContentType
from tempfile import SpooledTemporaryFile
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.identity import Identity, identify
from api.dependencies import Services
from api.errors import problem
from api.methods import allowed_methods
from models.domain.errors import Invalid, KeyReused, LeadStatsError
from models.secrets import Sealed, key_id, seal, unseal
from models.store import idempotency
from models.store.idempotency import Earlier, Reserved

log = logging.getLogger(__name__)

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replayed"
_KEY = re.compile(r"[!-~]{1,200}")
_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_KEPT_HEADERS = frozenset({"content-type", "location", "etag"})
Body = SpooledTemporaryFile[bytes]


class Idempotency:
    """The middleware. `services` are those of the application it belongs to."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self.app = app
        self.services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" and _is_repeatable(scope) else None
        identity = None if key is None else await self._identity(scope)
        if key is None or identity is None:
            await self.app(scope, receive, send)
        else:
            await self._run_once(key, identity, scope, receive, send)

    async def _identity(self, scope: Scope) -> Identity | None:
        """Who asks; None when the route will refuse them anyway."""
        try:
            return await identify(HTTPConnection(scope), self.services.database)
        except LeadStatsError:
            return None

    async def _run_once(self, key: str, identity: Identity, scope: Scope, receive: Receive, send: Send) -> None:
        if not _KEY.fullmatch(key):
            raise Invalid.field(f"header.{HEADER}", "malformed", "Use 1 to 200 plain characters without spaces.")
        with SpooledTemporaryFile(_IN_MEMORY_BYTES) as body:
            await _read(receive, body)
            request_hash = await asyncio.to_thread(_request_hash, scope, body)
            async with self.services.database.organization(identity.organization_id) as session:
                found = await idempotency.reserve(session, identity.actor_id, key, request_hash)
            if isinstance(found, Earlier):
                await self._earlier(found, request_hash, _binding(identity, key))(scope, receive, send)
            else:
                await self._first(found, identity, _binding(identity, key), scope, _replay(body, receive), send)

    def _earlier(self, earlier: Earlier, request_hash: bytes, binding: bytes) -> Response:
        if earlier.request_hash != request_hash:
            raise KeyReused
        if earlier.status_code is None or earlier.answer is None:
            return problem(409, "idempotency_key_in_use", "The first request with this key still runs; ask again in a moment.")
        stored = json.loads(unseal(self._key(), Sealed(key_id(self._key()), earlier.answer), binding))
        headers = stored["headers"] | {REPLAYED: "true"}
        return Response(base64.b64decode(stored["body"]), earlier.status_code, headers)

    async def _first(self, reserved: Reserved, identity: Identity, binding: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        try:
            await self.app(scope, receive, keep)
        except Exception:
            await self._settle(reserved, identity, None, b"")
            raise
        status, sealed = self._seal(answer, binding)
        await self._settle(reserved, identity, status, sealed)
        for message in answer:
            await send(message)

    def _seal(self, answer: list[Message], binding: bytes) -> tuple[int | None, bytes]:
        """The status and the sealed answer; no status when it is not to be kept."""
        status = int(answer[0]["status"])
        if not 200 <= status < 300:  # nothing was made
            return None, b""
        headers = {name: value for name, value in MutableHeaders(scope=answer[0]).items() if name in _KEPT_HEADERS}
        body = b"".join(message.get("body", b"") for message in answer[1:])
        stored = json.dumps({"headers": headers, "body": base64.b64encode(body).decode()})
        return status, seal(self._key(), stored, binding).blob

    async def _settle(self, reserved: Reserved, identity: Identity, status: int | None, sealed: bytes) -> None:
        """Never stands in the way of the answer: the effect has happened."""
        try:
            async with self.services.database.organization(identity.organization_id) as session:
                if status is None:
                    await idempotency.release(session, reserved)
                else:
                    await idempotency.settle(session, reserved, status, sealed)
        except Exception as error:
            log.warning("an idempotency key could not be settled: %s", type(error).__qualname__)

    def _key(self) -> bytes:
        return self.services.settings.derive_key("idempotency-answers")


def _is_repeatable(scope: Scope) -> bool:
    path = scope["path"]
    if scope["method"] != "POST" or not path.startswith("/v1/") or path == "/v1/session":
        return False
    return "POST" in allowed_methods(scope["app"], path)


def _binding(identity: Identity, key: str) -> bytes:
    return f"{identity.organization_id}:{identity.actor_id}:{key}".encode()


async def _read(receive: Receive, body: Body) -> None:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        body.write(message.get("body", b""))
        if not message.get("more_body"):
            return


def _request_hash(scope: Scope, body: Body) -> bytes:
    """Which request this is: what is asked for, on which condition, with which body. The random boundary of a multipart
    body is left out: clients draw a new one for each try."""
    headers = Headers(scope=scope)
    kind = ContentType()
    kind["content-type"] = headers.get("content-type", "")
    boundary = str(kind.get_param("boundary") or "").encode()
    digest = hashlib.sha256(f"{scope['method']} {scope['path']}?".encode() + scope["query_string"] + b"\n")
    digest.update(headers.get("if-match", "").encode() + b"\n")
    body.seek(0)
    while line := body.readline(_CHUNK_BYTES):  # a boundary stands at the start of a line
        digest.update(line.replace(boundary, b"") if boundary else line)
    return digest.digest()


def _replay(body: Body, receive: Receive) -> Receive:
    """A `receive` that gives the body again, then what comes after it."""
    body.seek(0)
    finished = False

    async def receive_again() -> Message:
        nonlocal finished
        if finished:
            return await receive()
        chunk = body.read(_CHUNK_BYTES)
        finished = len(chunk) < _CHUNK_BYTES
        return {"type": "http.request", "body": chunk, "more_body": not finished}

    return receive_again
