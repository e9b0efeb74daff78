"""Why an operator did something, in their own words."""

from typing import Annotated, Any, TypeVar

from fastapi import Query
from pydantic import Field, StringConstraints

from models.domain.errors import Invalid

REASON_RULE = "Why; shown on the timeline and kept in the audit record for ever: no names or addresses."
StatedReason = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    Field(max_length=200, description=REASON_RULE, examples=["wrong price in the second mail"]),
]
ReasonAsked = Annotated[StatedReason | None, Query(description=REASON_RULE)]  # where there is no body to hold it
# Where there must be one: blanks say nothing.
RequiredReason = Annotated[str, StringConstraints(strip_whitespace=True), Field(min_length=1, max_length=200, description=REASON_RULE)]
# Of a route whose body is missing in Python's eyes only, so that `stated` can say what it is for.
BODY_NEEDED: dict[str, Any] = {"requestBody": {"required": True}}


Body = TypeVar("Body")


def stated(body: Body | None) -> Body:
    """The body that must hold a reason. Raises Invalid where there is none at all."""
    if body is None:
        raise Invalid.field("reason", "missing", 'Say why, in a body such as {"reason": "asked by phone"}; it is kept in the audit record.')
    return body
