"""The variables of a run: what it may begin with, be given later, and be simulated with. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from models.domain.errors import Problem
from models.domain.journey.draft import storable
from models.domain.journey.operations import MOST_VARIABLES, VARIABLES_BYTES
from models.domain.journey.steps.base import VariableName

Variables = Annotated[dict[VariableName, Any], Field(max_length=MOST_VARIABLES)]


def variable_problems(values: Mapping[str, Any], path: str = "variables") -> list[Problem]:
    """Why a run cannot hold these values, each with its path under `path`; empty when it can."""
    return storable(values, path, VARIABLES_BYTES)
