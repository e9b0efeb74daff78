"""Bring a database to the newest schema."""

import logging
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL, make_url

APP_ROLE = "leadstats_app"
_LOCK = 7_218_441  # advisory: two migrating processes wait for each other

log = logging.getLogger(__name__)


class RoleRefused(RuntimeError):
    """The application's role does not let us in. The message says what to do."""


def application_url(owner_url: str, app_password: str) -> str:
    """The URL of the same database for the application's role."""
    return make_url(owner_url).set(username=APP_ROLE, password=app_password).render_as_string(hide_password=False)


def migrate(owner_url: str, app_password: str) -> None:
    """The schema is the newest and the application's role exists with this password. Safe to repeat.

    `owner_url` must be able to create roles and tables.

    Raises:
        RoleRefused: the server has the role already, with another password; nothing was changed.
        ValueError: the role could bypass row-level security.
    """
    engine = create_engine(_driver(make_url(owner_url)))
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()
            _ensure_role(connection, app_password)
            _try_role(owner_url, app_password)
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    finally:
        engine.dispose()


def _driver(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg")


def _ensure_role(connection: Connection, password: str) -> None:
    """The role exists, lets us in with this password and can bypass nothing. The owner need not be a superuser.

    A role that exists keeps its password: roles belong to the whole server, so another installation may live by it.
    """
    query = text("SELECT rolsuper OR rolbypassrls AS mighty FROM pg_roles WHERE rolname = :role")
    mighty = connection.execute(query, {"role": APP_ROLE}).scalar_one_or_none()
    if mighty:
        raise ValueError(f"The role {APP_ROLE} can bypass row-level security; take SUPERUSER and BYPASSRLS away from it.")
    if mighty is None:
        quoted = connection.execute(text("SELECT quote_literal(:password)"), {"password": password}).scalar_one()
        attributes = "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE"
        connection.execute(text(f"CREATE ROLE {APP_ROLE} {attributes} PASSWORD {quoted}".replace(":", r"\:")))
    connection.commit()


def _try_role(owner_url: str, password: str) -> None:
    url = make_url(application_url(owner_url, password)).set(drivername="postgresql")
    try:
        psycopg.connect(url.render_as_string(hide_password=False), connect_timeout=10).close()
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise RoleRefused(
            f"PostgreSQL has the role {APP_ROLE} already, but does not let us in as it ({reason}). Roles belong to the whole server: "
            "another installation on this server made the role, and its password is not changed. "
            f"Give this installation the same password by DATABASE_APP_URL=postgresql://{APP_ROLE}:PASSWORD@HOST:PORT/DATABASE, "
            "or use a PostgreSQL server of its own. Only when no other installation uses the role, set its password yourself: "
            f"ALTER ROLE {APP_ROLE} PASSWORD '...'."
        ) from None
