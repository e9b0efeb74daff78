"""The application, without waiting for its routes in every test."""

from functools import cache

from fastapi import FastAPI
from starlette.routing import BaseRoute

from api.app import create_app
from api.dependencies import Services


def application(services: Services) -> FastAPI:
    """As `create_app`. Routes that a test adds are this application's alone."""
    app = create_app(services)
    app.routes[:] = _routes()
    return app


@cache
def _routes() -> list[BaseRoute]:
    """FastAPI works each of them out when it first looks at it: a quarter of a second together, for every application.

    They can be shared, since a route finds the services by the request.
    """
    return create_app(None).routes  # type: ignore[arg-type]
