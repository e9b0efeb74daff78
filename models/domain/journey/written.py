"""Values as a designer writes them: only what can be meant in one way. Whole numbers and yes or no are pydantic's strict ones. Pure."""

import re
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator
from pydantic_core import PydanticCustomError

_DURATION = re.compile(r"[+-]?P(?=[0-9T])([0-9]+(\.[0-9]+)?[YMWD])*(T(?=[0-9])([0-9]+(\.[0-9]+)?[HMS])+)?")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].*")


def _written_duration(value: object) -> object:
    """A bare number, or "1 day", could be meant otherwise than it is read."""
    if isinstance(value, timedelta) or (isinstance(value, str) and _DURATION.fullmatch(value)):
        return value
    raise PydanticCustomError("malformed_duration", "Write a duration as ISO 8601 does, such as PT10S, PT15M or P3D")


def written_offset(value: object) -> object:
    """A number is one of seconds; yes and no are numbers to Python only."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return _written_duration(value)
    except PydanticCustomError:
        raise PydanticCustomError(
            "malformed_duration", "Write a duration as ISO 8601 does, such as PT10S, PT15M or P3D, or give a number of seconds"
        ) from None


def _written_moment(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _MOMENT.fullmatch(value)):
        return value
    raise PydanticCustomError("malformed_moment", "Write a moment as ISO 8601 does, with its zone, such as 2027-01-31T23:00:00Z")


Duration = Annotated[timedelta, BeforeValidator(_written_duration)]
Moment = Annotated[AwareDatetime, BeforeValidator(_written_moment)]
