"""Query parameters that a route does not know are refused, as unknown fields of a body are: one that is misspelt would change what is
answered, or done, without a word."""

from collections.abc import Sequence

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute

from models.domain.errors import Invalid, Problem

MAX_PROBLEMS = 20


def refuse_unknown_parameters(request: Request) -> None:
    """Of the route that was found for the request.

    Raises:
        Invalid: one of the address's parameters is none of the route's.
    """
    if not request.url.query:
        return
    known = _known(request)
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        way_out = f"use one of {', '.join(known)}, or leave it out" if known else "leave it out, for there are none here"
        message = f"There is no such parameter; {way_out}."
        raise Invalid([Problem(f"query.{name[:64]}", "unknown_parameter", message) for name in unknown[:MAX_PROBLEMS]])


def _known(request: Request) -> Sequence[str]:
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    # Fields of a model of parameters, which only addresses have here, do not say where they stand.
    found = get_flat_params(route.dependant)
    return [field.alias for field in found if getattr(field.field_info, "in_", ParamTypes.query) is ParamTypes.query]
