"""The variables of a run: what it may begin with, be given later, and be simulated with. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from models.domain.errors import Problem
from models.domain.journey.draft import size_in_bytes, storable
from models.domain.journey.operations import MOST_VARIABLES, VARIABLES_BYTES
from models.domain.journey.steps.base import VariableName

Variables = Annotated[dict[VariableName, Any], Field(max_length=MOST_VARIABLES)]


TOO_LARGE = "variables_too_large"  # why a value was not kept


def within_bounds(held: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that a run which holds `held` can be given, in their order, and of the others, by name, why not.

    What is beyond the bounds already, as an event may bring in more names, takes what does not make it larger."""
    after, kept = dict(held), {}
    missed: dict[str, str] = {}
    for name, value in values.items():
        if _fits(wanted := {**after, name: value}, after):
            after, kept[name] = wanted, value
        else:
            missed[name] = TOO_LARGE
    return kept, missed


def _fits(after: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return len(after) <= max(MOST_VARIABLES, len(before)) and (
        (size := size_in_bytes(after)) <= VARIABLES_BYTES or size <= size_in_bytes(before)
    )


def variable_problems(values: Mapping[str, Any], path: str = "variables") -> list[Problem]:
    """Why a run cannot hold these values, each with its path under `path`; empty when it can."""
    return storable(values, path, VARIABLES_BYTES)
