import socket
from pathlib import Path

import pytest

from deploy.environment import PortTaken, child_environment, make_plan, server_environment
from deploy.ports import Reservations
from deploy.state import StateDirectory
from models.settings import Settings

EXTERNAL = {
    "DATABASE_URL": "postgresql://owner:secret@db.internal/leads",
    "TEMPORAL_ADDRESS": "temporal.internal:7233",
    "TEMPORAL_NAMESPACE": "leads",
}


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path)
    directory.prepare()
    return directory


def test_without_addresses_every_part_is_ours(state: StateDirectory) -> None:
    plan = make_plan(state, Reservations(), {})
    assert plan.temporal_address == f"127.0.0.1:{plan.temporal_port}"
    assert f"127.0.0.1:{plan.postgres_port}" in plan.owner_url


def test_addresses_in_the_environment_replace_our_parts(state: StateDirectory) -> None:
    plan = make_plan(state, Reservations(), EXTERNAL)
    assert (plan.postgres_port, plan.temporal_port, plan.temporal_ui_port) == (None, None, None)
    assert (plan.temporal_address, plan.temporal_namespace) == ("temporal.internal:7233", "leads")
    assert plan.app_url.startswith("postgresql://leadstats_app:") and plan.app_url.endswith("@db.internal/leads")


def test_children_understand_their_environment_and_do_not_get_the_owners_power(state: StateDirectory) -> None:
    environment = child_environment(make_plan(state, Reservations(), EXTERNAL), EXTERNAL)
    settings = Settings.from_environment(environment)
    assert settings.state_directory == state.path
    assert settings.owner_database_url is None
    assert settings.temporal_ui_url is None  # of a Temporal that is not ours
    assert "secret" not in environment.values() and "DATABASE_URL" not in environment


def test_children_are_told_where_our_temporals_pages_are(state: StateDirectory) -> None:
    plan = make_plan(state, Reservations(), {})
    assert Settings.from_environment(child_environment(plan, {})).temporal_ui_url == plan.temporal_ui_address


def test_servers_get_no_credentials() -> None:
    assert server_environment({"PATH": "/bin", "LEADSTATS_SECRET_KEY": "k", "TEMPORAL_API_KEY": "t"}) == {"PATH": "/bin"}


def test_ports_stay_the_same_from_start_to_start(state: StateDirectory) -> None:
    first = Reservations()
    before = make_plan(state, first, {})
    first.release()
    assert make_plan(state, Reservations(), {}) == before


def test_a_port_that_is_insisted_on_but_taken_is_refused_by_name(state: StateDirectory) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        with pytest.raises(PortTaken, match=f"LEADSTATS_API_PORT={taken}"):
            make_plan(state, Reservations(), {"LEADSTATS_API_PORT": str(taken)})
