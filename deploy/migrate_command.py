"""`leadstats migrate`: the database has the newest schema."""

import argparse
import os
import sys

from sqlalchemy.engine import make_url

from models.migrations.run import RoleRefused, migrate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Reads DATABASE_URL (the owner) and DATABASE_APP_URL (the role, with its password: made when missing)."""


def run(arguments: argparse.Namespace) -> int:
    """0 when the schema is the newest, 1 when the role cannot be used, 2 when the environment does not say which database."""
    owner, application = os.environ.get("DATABASE_URL"), os.environ.get("DATABASE_APP_URL")
    if not owner or not application:
        print(
            "leadstats migrate: set DATABASE_URL (the owner) and DATABASE_APP_URL (role leadstats_app with its password)", file=sys.stderr
        )
        return 2
    try:
        migrate(owner, make_url(application).password or "")
    except (RoleRefused, ValueError) as refusal:
        print(f"leadstats migrate: {refusal}", file=sys.stderr)
        return 1
    print("The database has the newest schema.")
    return 0
