"""Why an operator did something, in their own words."""

from typing import Annotated

from fastapi import Query
from pydantic import Field, StringConstraints

REASON_RULE = "Why; shown on the timeline and kept in the audit record for ever: no names or addresses."
StatedReason = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    Field(max_length=200, description=REASON_RULE, examples=["wrong price in the second mail"]),
]
ReasonAsked = Annotated[StatedReason | None, Query(description=REASON_RULE)]  # where there is no body to hold it
# Where there must be one: blanks say nothing.
RequiredReason = Annotated[str, StringConstraints(strip_whitespace=True), Field(min_length=1, max_length=200, description=REASON_RULE)]
