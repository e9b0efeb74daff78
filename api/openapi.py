"""The OpenAPI document: what FastAPI finds in the routes, and what holds for every route."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import MEDIA_TYPE, ProblemDocument

DESCRIPTION: Final = """
Journeys as durable runs, provable sends.

* **Who.** `Authorization: Bearer ls_…` (an API key), or the console's session cookie with the header `X-CSRF-Token`.
* **Errors** are RFC 9457 problem documents: `code` is for programs, `errors` names the fields.
* **Parameters** in the address that an operation does not know are refused, as unknown fields of a body are.
* **Lists** are pages: pass `next_cursor` back as `cursor`.
* **Repeating.** Send `Idempotency-Key` with a POST; the same key and body give the same answer and no second thing, for 24 hours.
* **Times** are UTC, RFC 3339.
"""
_ALWAYS = {
    "400": "The request cannot be understood.",
    "401": "No valid API key or session.",
    "403": "The caller lacks the permission, or the CSRF token is missing.",
    "404": "Something that the request names does not exist in this organization.",
    "422": "The input breaks a rule; `errors` names the fields.",
    "429": "Too many attempts; see Retry-After.",
    "503": "The database or the workflow service does not answer now; see Retry-After.",
}
_CHANGING = {"409": "Its state does not allow this now.", "413": "The body is too large."}
_CONDITIONAL = {"412": "Somebody else saved first; read it again."}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Up to 200 plain characters of your choice. Repeating the request with the same key repeats the answer, not the effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$", "examples": ["order-1042"]},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document, made once and kept."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(_problem_schemas())
        components["responses"] = {
            f"Problem{status}": _problem_response(text) for status, text in (_ALWAYS | _CHANGING | _CONDITIONAL).items()
        }
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _complete(path, method, operation)
        app.openapi_schema = document
    return app.openapi_schema


def _problem_schemas() -> dict[str, Any]:
    schema = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"ProblemDocument": {key: value for key, value in schema.items() if key != "$defs"}, **schema["$defs"]}


def _problem_response(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}}


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    expected = _ALWAYS | (_CHANGING if method != "get" else {})
    if any(parameter["name"].lower() == "if-match" for parameter in operation.get("parameters", ())):
        expected |= _CONDITIONAL
    for status, response in responses.items():
        if status.startswith(("4", "5")) and "application/json" not in response.get("content", {}):
            responses[status] = _problem_response(response["description"])
    for status in expected:
        # FastAPI's own description of 422 shows a shape that api/errors.py never gives.
        if status not in responses or "HTTPValidationError" in str(responses[status]):
            responses[status] = {"$ref": f"#/components/responses/Problem{status}"}
    if method == "post" and path != "/v1/session":
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
