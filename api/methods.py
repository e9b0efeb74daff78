"""Which methods a path answers to, over all routes that match it."""

import re
from collections.abc import Sequence
from functools import lru_cache

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import compile_path


@lru_cache(maxsize=8)
def _patterns(app: FastAPI, routes: int) -> Sequence[tuple[re.Pattern[str], frozenset[str]]]:
    """Compiled once per application, and again when it has gained routes."""
    found = []
    for route in iter_route_contexts(app.routes):
        if route.path is not None:
            found.append((compile_path(route.path)[0], frozenset(route.methods or ())))
    return found


def allowed_methods(app: FastAPI, path: str) -> frozenset[str]:
    """Empty when there is no such path."""
    matching = (methods for pattern, methods in _patterns(app, len(app.routes)) if pattern.match(path))
    return frozenset().union(*matching)
