import json
import os
import stat
from pathlib import Path

import pytest

from deploy.state import AlreadyRunning, StateDirectory


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path / "state")
    directory.prepare()
    return directory


def test_secrets_are_made_once_and_kept(state: StateDirectory) -> None:
    assert state.secrets() == StateDirectory(state.path).secrets()


def test_two_installations_have_different_secrets(tmp_path: Path) -> None:
    first, second = StateDirectory(tmp_path / "1"), StateDirectory(tmp_path / "2")
    for directory in (first, second):
        directory.prepare()
    assert first.secrets().secret_key != second.secrets().secret_key


def test_what_is_written_is_readable_by_its_owner_only(state: StateDirectory) -> None:
    before = os.umask(0)
    try:
        state.secrets()
        state.keep_installation({"api_key": "k"})
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((state.path / name).stat().st_mode) for name in ("secrets.json", "installation.json")}
    assert modes == {"secrets.json": 0o600, "installation.json": 0o600}


def test_a_second_start_over_the_same_state_is_refused_and_told_who_runs(state: StateDirectory) -> None:
    with state.locked(), pytest.raises(AlreadyRunning, match=rf"already runs over .* \(process {os.getpid()}\)"), state.locked():
        pass


def test_the_lock_is_free_again_afterwards(state: StateDirectory) -> None:
    with state.locked():
        pass
    with state.locked():
        pass


def test_nothing_claims_to_run_after_a_stop(state: StateDirectory) -> None:
    state.keep_processes({"api": 1})
    state.keep_installation({"api": "x"})
    state.forget_running()
    assert (state.processes(), state.installation()) == ({}, None)


def test_a_half_written_file_never_replaces_a_whole_one(state: StateDirectory) -> None:
    state.keep_ports({"api": 8000})
    with pytest.raises(TypeError):
        state.keep_ports({"api": object()})  # type: ignore[dict-item]
    assert json.loads((state.path / "ports.json").read_text()) == {"api": 8000}
