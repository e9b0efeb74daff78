"""The only mapping from errors to HTTP: every answer that is not a success is an RFC 9457 problem document.

| error | status |
|---|---|
| NotAuthenticated | 401 |
| NotAllowed | 403 |
| NotFound | 404 |
| Conflict | 409 (StaleRevision: 412) |
| Invalid | 422, with one entry in `errors` per field |
| TooManyAttempts | 429 with Retry-After |
| Unavailable, Temporal or the database away | 503 with Retry-After |
| anything else | 500 with an id that is also in the log |
"""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.methods import allowed_methods
from api.temporal_errors import is_away
from models.domain import errors
from models.domain.errors import Problem
from models.domain.phrases import json_path, plain_message
from models.store.faults import Fault, fault_of

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 5

_STATUS: dict[type[errors.LeadStatsError], int] = {
    errors.NotAuthenticated: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.StaleRevision: 412,
    errors.Conflict: 409,
    errors.Invalid: 422,
    errors.TooManyAttempts: 429,
    errors.Unavailable: 503,
}
_HTTP_CODES = {400: "malformed", 404: "no_such_route", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}


class FieldProblem(BaseModel):
    """One broken rule: where, which, and what to do."""

    path: str = Field(examples=["email"])
    code: str = Field(examples=["missing"])
    message: str = Field(examples=["This field is required."])


class ProblemDocument(BaseModel):
    """RFC 9457. `code` is for programs, `detail` for people; `errors` names the fields of a refused input."""

    type: str = Field(examples=["urn:leadstats:error:not_found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no contact with this id."])
    code: str = Field(examples=["not_found"])
    errors: list[FieldProblem] = []


def problem(
    status: int, code: str, detail: str, problems: Sequence[Problem] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem document."""
    document = ProblemDocument(
        type=f"urn:leadstats:error:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        errors=[FieldProblem(path=one.path, code=one.code, message=one.message) for one in problems],
    )
    return JSONResponse(document.model_dump(), status, headers, MEDIA_TYPE)


def answer(error: Exception) -> JSONResponse:
    """The answer to whatever was raised. What nobody foresaw is logged, by class and place only: its text may hold
    personal data."""
    match error:
        case errors.LeadStatsError():
            return _domain_problem(error)
        case RequestValidationError():
            return problem(422, "invalid", "The request breaks a rule; see errors.", _field_problems(error))
        case HTTPException():
            code = _HTTP_CODES.get(error.status_code, "http_error")
            return problem(error.status_code, code, str(error.detail), _unreadable(error), headers=error.headers)
    if is_away(error):
        return _unavailable("The workflow service does not answer now; repeat the request with the same Idempotency-Key.")
    match fault_of(error):
        case Fault.UNAVAILABLE:
            return _unavailable("The database does not answer now; repeat the request.")
        case Fault.TAKEN:
            return problem(409, "taken", "Another request has just taken a name or key that must be unique; read it, then try again.")
        case Fault.REFERENCED:
            return problem(409, "referenced", "Something else still refers to this, or this refers to something that is gone.")
        case Fault.UNSTORABLE:
            return problem(422, "invalid", "The request holds a character or a number that cannot be stored.")
    return _unexpected(error)


def _unreadable(error: HTTPException) -> list[Problem]:
    """Why the framework could not read a body, which it does not say."""
    if error.status_code != 400:
        return []
    match error.__cause__:
        case UnicodeDecodeError():
            return [Problem("body", "not_utf8", "Send the body as UTF-8.")]
        case RecursionError():
            return [Problem("body", "too_deep", "Nest objects and lists less deeply.")]
        case ValueError():  # of all that the parser refuses besides: https://docs.python.org/3/library/stdtypes.html#int-max-str-digits
            return [Problem("body", "number_too_long", f"Give no number of more than {sys.get_int_max_str_digits():,} digits.")]
    return []


def _domain_problem(error: errors.LeadStatsError) -> JSONResponse:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if isinstance(error, errors.TooManyAttempts):
        headers["Retry-After"] = str(math.ceil(error.retry_after.total_seconds()))
    problems = error.problems if isinstance(error, errors.Invalid) else ()
    return problem(status, error.code, error.message, problems, headers)


def _field_problems(error: RequestValidationError) -> list[Problem]:
    """Only the rule and the place: the refused value may be a secret."""
    return [Problem(_path(one, error.body), str(one["type"]), plain_message(one)) for one in error.errors()]


def _path(one: Mapping[str, Any], body: Any) -> str:
    """As the sender sees the request: fields of the body by their own names, a list's items from `[0]`."""
    place, *inner = one["loc"]
    if place != "body":
        return json_path(one["loc"])
    if one["type"] == "json_invalid":
        return "body"
    if inner and isinstance(inner[0], int) and isinstance(body, Mapping):
        inner = inner[1:]  # a single item was given where a list may stand
    return json_path(inner) or "body"


def _unavailable(detail: str) -> JSONResponse:
    return problem(503, "unavailable", detail, headers={"Retry-After": str(RETRY_SECONDS)})


def _unexpected(error: Exception) -> JSONResponse:
    identifier = uuid4()
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    log.error("unexpected error %s: %s at %s", identifier, type(error).__qualname__, " < ".join(reversed(frames[-6:])))
    return problem(500, "unexpected", f"Something went wrong on our side; tell the operator this id: {identifier}.")


def install_handlers(app: FastAPI) -> None:
    """Every error of a route becomes a problem document."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        found = answer(error)
        if found.status_code == 405:  # the framework names the methods of the first route that matches only
            found.headers["Allow"] = ", ".join(sorted(allowed_methods(app, request.url.path)))
        return found

    for kind in (errors.LeadStatsError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
