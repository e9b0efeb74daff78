"""Why an operator did something, in their own words."""

from typing import Annotated

from pydantic import Field

REASON_RULE = "Why; shown on the timeline and kept in the audit record for ever: no names or addresses."
StatedReason = Annotated[str, Field(max_length=200, description=REASON_RULE, examples=["wrong price in the second mail"])]
