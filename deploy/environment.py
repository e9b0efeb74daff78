"""What the parts are told: where the others are. Made by `leadstats up`, read by `models.settings` and by Temporal's client."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.ports import USUAL, Reservations
from deploy.state import Secrets, StateDirectory
from models.migrations.run import application_url

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Plan:
    """Which parts are ours, and the address of every part."""

    state: StateDirectory
    secrets: Secrets
    api_host: str
    api_port: int
    smtp_port: int
    temporal_address: str
    temporal_namespace: str
    temporal_port: int | None  # None: an external Temporal
    temporal_ui_port: int | None
    postgres_port: int | None  # None: an external PostgreSQL
    owner_url: str
    app_url: str

    @property
    def api_address(self) -> str:
        host = "127.0.0.1" if self.api_host in ("0.0.0.0", "::") else self.api_host
        return f"http://{host}:{self.api_port}"

    @property
    def temporal_ui_address(self) -> str | None:
        return f"http://127.0.0.1:{self.temporal_ui_port}" if self.temporal_ui_port else None


def child_environment(plan: Plan, outer: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of worker, API and sandbox. The owner's database URL is not in it: they do not need its power."""
    ours = {
        "DATABASE_APP_URL": plan.app_url,
        "TEMPORAL_ADDRESS": plan.temporal_address,
        "TEMPORAL_NAMESPACE": plan.temporal_namespace,
        "LEADSTATS_SECRET_KEY": outer.get("LEADSTATS_SECRET_KEY") or plan.secrets.secret_key,
        "LEADSTATS_STATE": str(plan.state.path),
        "LEADSTATS_API_HOST": plan.api_host,
        "LEADSTATS_API_PORT": str(plan.api_port),
        "LEADSTATS_SANDBOX_SMTP_PORT": str(plan.smtp_port),
        "PYTHONUNBUFFERED": "1",
    }
    inherited = {name: value for name, value in outer.items() if name != "DATABASE_URL"}
    public_url = {"LEADSTATS_PUBLIC_URL": outer.get("LEADSTATS_PUBLIC_URL", plan.api_address)}
    temporal_ui = {"LEADSTATS_TEMPORAL_UI_URL": plan.temporal_ui_address} if plan.temporal_ui_address else {}
    return inherited | ours | public_url | temporal_ui


def server_environment(outer: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of PostgreSQL and Temporal: nothing of ours, and no credentials."""
    return {name: value for name, value in outer.items() if name in ("PATH", "HOME", "LANG", "TMPDIR", "TZ", "LD_LIBRARY_PATH")}


def part_command(name: str) -> list[str]:
    return [sys.executable, str(ROOT / "leadstats.py"), name]


def make_plan(state: StateDirectory, reservations: Reservations, outer: Mapping[str, str] = os.environ) -> Plan:
    """Where everything will be: external parts as the environment names them, ours on ports that are free now.

    Raises:
        PortTaken: a port that the environment insists on is not free.
    """
    secrets, remembered = state.secrets(), state.ports()
    wanted = ["api", "sandbox_smtp"]
    wanted += [] if outer.get("TEMPORAL_ADDRESS") else ["temporal", "temporal_ui"]
    wanted += [] if outer.get("DATABASE_URL") else ["postgres"]
    ports = {name: _port(name, reservations, remembered.get(name), outer) for name in wanted}
    state.keep_ports(remembered | ports)
    owner_url = (
        outer.get("DATABASE_URL") or f"postgresql://leadstats:{secrets.database_owner_password}@127.0.0.1:{ports['postgres']}/leadstats"
    )
    return Plan(
        state=state,
        secrets=secrets,
        api_host=outer.get("LEADSTATS_API_HOST", "127.0.0.1"),
        api_port=ports["api"],
        smtp_port=ports["sandbox_smtp"],
        temporal_address=outer.get("TEMPORAL_ADDRESS") or f"127.0.0.1:{ports['temporal']}",
        temporal_namespace=outer.get("TEMPORAL_NAMESPACE") or "default",
        temporal_port=ports.get("temporal"),
        temporal_ui_port=ports.get("temporal_ui"),
        postgres_port=ports.get("postgres"),
        owner_url=owner_url,
        app_url=outer.get("DATABASE_APP_URL") or application_url(owner_url, secrets.database_app_password),
    )


class PortTaken(Exception):
    """The message names the variable and the port."""


_INSISTED = {"api": "LEADSTATS_API_PORT", "sandbox_smtp": "LEADSTATS_SANDBOX_SMTP_PORT"}


def _port(name: str, reservations: Reservations, remembered: int | None, outer: Mapping[str, str]) -> int:
    variable = _INSISTED.get(name, "")
    if insisted := outer.get(variable):
        if not reservations.take(int(insisted)):
            raise PortTaken(f"{variable}={insisted}: the port is taken. Free it, or unset {variable} to have one chosen.")
        return int(insisted)
    return reservations.choose(USUAL[name], remembered)
