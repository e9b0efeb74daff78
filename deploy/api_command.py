"""`leadstats api`: the HTTP API in this process."""

import argparse
import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI

from api.app import create_app
from api.dependencies import Services
from deploy.serving import serve
from models.settings import Settings
from models.store.session import Database
from workflows.connection import connect


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings come from the environment: docs/operating.md."""


def run(arguments: argparse.Namespace) -> int:
    return serve(serve_api, uvloop.run)


async def serve_api(settings: Settings) -> None:
    """Serves until cancelled; requests in the air get a second to finish. Starts without Temporal, and heals when it comes."""
    database = Database(settings.database_url.get_secret_value(), settings.pool_size)
    temporal = await connect(settings, lazy=True)
    app = create_app(Services(settings=settings, database=database, temporal=temporal))
    try:
        await _serve_until_cancelled(_Server(configuration(app, settings)))
    finally:
        await database.close()


def configuration(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How the application is served. A client's address is its connection's, unless a proxy that the settings name says otherwise:
    uvicorn would believe everybody on this machine, and logins are throttled by address."""
    return uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,  # query strings may hold personal data
        server_header=False,
        timeout_graceful_shutdown=1,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
    )


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are `deploy.serving`'s; uvicorn would raise them again when it has ended, before the database is closed."""
        yield


async def _serve_until_cancelled(server: uvicorn.Server) -> None:
    serving = asyncio.create_task(server.serve())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
