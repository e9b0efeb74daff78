import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import AsyncMock

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from deploy import doctor, doctor_checks
from deploy.doctor import examine
from deploy.doctor_target import Target
from deploy.probes import Unhealthy
from deploy.state import StateDirectory
from models.domain.findings import Kind, Sighting
from models.settings import Settings
from models.store import access, conservation, findings
from models.store.session import Database
from models.tables.base import new_id


@pytest.fixture
def target(settings: Settings, tmp_path: Path) -> Target:
    assert settings.owner_database_url is not None
    owner = settings.owner_database_url.get_secret_value()
    return Target(tmp_path, None, settings.database_url.get_secret_value(), owner, None, "journeys")


async def test_a_sound_database_is_well(target: Target) -> None:
    assert (await doctor_checks.database(target)).startswith("PostgreSQL 1")
    assert "held by row-level security" in await doctor_checks.isolation(target)
    assert (await doctor_checks.migrations(target)).startswith("at ")
    assert "time zones" in await doctor_checks.clock(target)


async def test_an_application_role_that_sees_everything_is_found(target: Target) -> None:
    powerful = Target(target.state, None, target.owner_database_url, target.owner_database_url, None, "journeys")
    with pytest.raises(Unhealthy, match="leadstats bypasses row-level security"):
        await doctor_checks.isolation(powerful)


async def test_secrets_that_others_can_read_are_found(target: Target) -> None:
    secrets = target.state / "secrets.json"
    secrets.touch()
    secrets.chmod(0o644)
    with pytest.raises(Unhealthy, match=f"chmod 600 {secrets}"):
        await doctor_checks.secrets(target)


async def test_a_package_other_than_locked_is_found(target: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("fastapi==0.0.1 \\\n    --hash=sha256:00\n")
    monkeypatch.setattr(doctor_checks, "ROOT", tmp_path)
    with pytest.raises(Unhealthy, match=r"fastapi .* instead of 0\.0\.1"):
        await doctor_checks.packages(target)


async def test_every_finding_of_an_installation_that_is_down_says_what_to_do(tmp_path: Path) -> None:
    findings = {finding.check: finding for finding in await examine(StateDirectory(tmp_path), {"TEMPORAL_ADDRESS": "127.0.0.1:1"})}
    assert findings["python"].ok
    down = [findings[name] for name in ("processes", "database", "migrations", "temporal", "worker", "api", "sandbox")]
    assert not any(finding.ok for finding in down)
    assert all(finding.remedy and "leadstats up" in finding.remedy for finding in down)


async def test_a_stopped_installation_is_not_judged_by_the_temporal_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = AsyncMock()
    monkeypatch.setattr(doctor_checks, "connect_bare", connect)
    state = StateDirectory(tmp_path)
    state.keep_ports({"temporal": 7233})
    findings = {finding.check: finding for finding in await examine(state, {})}
    assert findings["temporal"].detail == "Temporal is not running."
    connect.assert_not_called()


async def test_what_does_not_answer_is_given_up_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frozen server: the kernel takes the connection, nobody answers."""
    monkeypatch.setattr(doctor, "PATIENCE", 1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        began = time.monotonic()
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        findings = {finding.check: finding for finding in await examine(StateDirectory(tmp_path), {"TEMPORAL_ADDRESS": address})}
        assert time.monotonic() - began < 60
    for name in ("temporal", "search attributes", "history retention", "worker"):
        assert findings[name].detail == "It did not answer within 1 s."
        assert findings[name].remedy


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def freeze(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


def end(process: subprocess.Popen[bytes]) -> None:
    """A zombie: it has ended and nobody has asked how."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


async def test_a_worker_that_is_stopped_or_dead_is_found_though_its_polls_are_remembered(
    target: Target, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "connect_bare", AsyncMock())
    monkeypatch.setattr(doctor_checks, "worker_polls", AsyncMock(return_value=["worker@here"]))
    installed = replace(target, temporal="127.0.0.1:1", processes={"worker": sleeper.pid})
    assert await doctor_checks.worker(installed) == "1 poll journeys"
    assert await doctor_checks.processes(installed) == "worker"
    freeze(sleeper)
    for check in (doctor_checks.worker, doctor_checks.processes):
        with pytest.raises(Unhealthy, match=f"Worker .*is stopped.*kill -CONT {sleeper.pid}"):
            await check(installed)
    end(sleeper)
    with pytest.raises(Unhealthy, match=r"Worker .*has ended.*log in the state directory"):
        await doctor_checks.worker(installed)
    with pytest.raises(Unhealthy, match=r"Worker has no process"):
        await doctor_checks.worker(replace(installed, processes={"worker": None}))


async def test_a_refused_password_is_told_from_a_server_that_is_not_there(target: Target) -> None:
    assert target.database_url is not None
    url = make_url(target.database_url)
    wrong = replace(target, database_url=url.set(password="wrong").render_as_string(hide_password=False))
    with pytest.raises(Unhealthy, match=r"refuses the password of leadstats_app.*DATABASE_APP_URL"):
        await doctor_checks.database(wrong)
    absent = replace(target, database_url=url.set(port=1).render_as_string(hide_password=False))
    with pytest.raises(Unhealthy, match=r"Cannot connect to PostgreSQL at 127\.0\.0\.1:1 .*leadstats up"):
        await doctor_checks.database(absent)


async def test_a_short_retention_is_told_in_days(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "connect_bare", AsyncMock())
    monkeypatch.setattr(doctor_checks, "retention", AsyncMock(return_value=timedelta(days=3)))
    with pytest.raises(Unhealthy, match=r"kept for 3 days, less than 7 days\."):
        await doctor_checks.history_retention(replace(target, temporal="127.0.0.1:1"))


async def test_open_findings_and_a_reconciler_that_has_stopped_are_found(target: Target, database: Database) -> None:
    with psycopg.connect(target.owner_database_url or "") as connection:  # what other tests have left in this database
        connection.execute("UPDATE findings SET resolved_at = now() WHERE resolved_at IS NULL")
        connection.execute("UPDATE organization_checks SET workflows_at = NULL")
    assert "has not looked yet; no problem is open" in await doctor_checks.reconciler(target)
    organization_id = new_id()
    seen = Sighting(Kind.OVERDUE_WAKE, "workflow", "x", {}, runs=1)
    async with database.organization(organization_id) as session:
        await access.insert_organization(session, "Acme", "doctor-acme")
        await conservation.note(session, "workflows")
        await findings.record(session, [seen], [Kind.OVERDUE_WAKE])
    with pytest.raises(Unhealthy, match="1 findings are open: doctor-acme: overdue_wake"):
        await doctor_checks.reconciler(target)
    async with database.organization(organization_id) as session:
        await findings.record(session, [], [Kind.OVERDUE_WAKE])
        await session.execute(text("UPDATE organization_checks SET workflows_at = now() - interval '20 minutes'"))
    with pytest.raises(Unhealthy, match="last looked 20 minutes ago"):
        await doctor_checks.reconciler(target)
    async with database.organization(organization_id) as session:
        await session.execute(text("UPDATE organization_checks SET workflows_at = now()"))
    assert "no problem is open, 0 suspicions" in await doctor_checks.reconciler(target)
