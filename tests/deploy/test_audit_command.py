import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from deploy import audit_command
from deploy.state import StateDirectory
from models.checkpoints import Signer
from models.domain.audit import NewEntry
from models.settings import Settings
from models.store import access, audit
from models.store.audit_export import export_lines
from models.store.session import Database
from models.tables.base import new_id

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    audit_command.add_arguments(parser)
    return audit_command.run(parser.parse_args(arguments))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def slug(database: Database) -> str:
    organization_id = new_id()
    async with database.organization(organization_id) as session:
        await access.insert_organization(session, "Acme", f"acme-{organization_id}")
        await audit.append(session, [NewEntry("run.paused", "run", f"r{n}", details={"n": n}) for n in range(120)])
    return f"acme-{organization_id}"


@pytest_asyncio.fixture(loop_scope="session")
async def exported(database: Database, settings: Settings, slug: str, tmp_path: Path) -> Path:
    async with database.outside() as session:
        organization_id = await access.organization_id_by_slug(session, slug)
    assert organization_id is not None
    path = tmp_path / "audit.jsonl"
    path.write_text("".join([part async for part in export_lines(database, organization_id, Signer(settings), batch=50)]))
    return path


def environment(settings: Settings) -> dict[str, str]:
    import base64

    key = base64.b64encode(settings.secret_key.get_secret_value()).decode()
    return {"DATABASE_APP_URL": settings.database_url.get_secret_value(), "LEADSTATS_SECRET_KEY": key}


def test_an_export_is_written_whole_and_verifies(settings: Settings, slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEADSTATS_STATE", str(tmp_path / "none"))
    path = tmp_path / "audit.jsonl"
    assert run("export", "--organization", slug, "--output", str(path)) == 0
    assert len(path.read_text().splitlines()) == 1 + 120 + 1 + 1
    assert path.stat().st_mode & 0o077 == 0
    assert run("verify", str(path), "--public-key", Signer(settings).public_key.hex()) == 0
    assert run("export", "--organization", "nobody", "--output", str(tmp_path / "nobody")) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the environment says where an installation is."""
    for name in ("DATABASE_APP_URL", "DATABASE_URL", "LEADSTATS_SECRET_KEY", "LEADSTATS_STATE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def running(bare: None, settings: Settings, tmp_path: Path) -> StateDirectory:
    """What an installation with a database of the operator's own leaves in its state directory while it is up."""
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    key = environment(settings)["LEADSTATS_SECRET_KEY"]
    state.keep_secrets(state.secrets().model_copy(update={"secret_key": key, "database_app_password": "app-password"}))
    state.keep_installation({"database_url": settings.database_url.get_secret_value()})
    return state


def test_an_export_finds_the_running_installation_by_its_state_directory(
    running: StateDirectory, slug: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEADSTATS_STATE", str(running.path))
    path = running.path / "audit.jsonl"
    assert run("export", "--organization", slug, "--output", str(path), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    public_key = Signer(settings).public_key.hex()
    assert said == {"organization": slug, "output": str(path), "lines": 123, "public_key": public_key}
    assert run("verify", str(path), "--public-key", public_key) == 0


def test_an_export_finds_the_operators_own_database_while_nothing_is_up(
    running: StateDirectory, slug: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.forget_running()
    assert settings.owner_database_url is not None
    monkeypatch.setenv("DATABASE_URL", settings.owner_database_url.get_secret_value())
    path = running.path / "audit.jsonl"
    assert run("export", "--organization", slug, "--output", str(path), "--state", str(running.path)) == 0
    assert len(path.read_text().splitlines()) == 123


@pytest.mark.parametrize("owner_url", [None, "postgresql://owner:secret@127.0.0.1:1/leads"])
def test_an_export_without_an_installation_says_what_to_give(
    bare: None, tmp_path: Path, owner_url: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if owner_url is not None:
        monkeypatch.setenv("DATABASE_URL", owner_url)
    assert run("export", "--organization", "acme", "--output", "-", "--state", str(tmp_path / "none")) == 1
    said = capsys.readouterr().err
    assert "--state" in said and "secret@" not in said
    assert not (tmp_path / "none").exists()


def test_an_export_that_cannot_be_written_says_so(running: StateDirectory, slug: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("export", "--organization", slug, "--state", str(running.path))
    for output in (running.path / "missing" / "audit.jsonl", running.path / "secrets.json" / "audit.jsonl", running.logs):
        assert run(*common, "--output", str(output)) == 1
        assert f"{output} cannot be written: " in capsys.readouterr().err
    assert run(*common, "--output", "-", "--json") == 1
    assert "--json needs a file" in capsys.readouterr().err
    running.keep_installation({"database_url": "postgresql://leadstats_app:x@127.0.0.1:1/leads"})
    assert run(*common, "--output", str(running.path / "audit.jsonl")) == 1
    assert "the database does not answer" in capsys.readouterr().err
    (running.path / "secrets.json").write_text('{"secret_key": "hush"}')
    assert run(*common, "--output", str(running.path / "audit.jsonl")) == 1
    said = capsys.readouterr().err
    assert f"{running.path} cannot be read" in said and "hush" not in said
    assert not list(running.path.glob("audit*"))


def test_a_change_is_named_in_text_and_in_json(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported.write_text(exported.read_text().replace('"n":41', '"n":40'))
    assert run("verify", str(exported)) == 1
    assert "changed: Entry 42" in capsys.readouterr().out
    assert run("verify", str(exported), "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["findings"][0]["kind"], report["findings"][0]["sequence"]) == (False, "changed", 42)


def test_an_unpinned_key_is_pointed_out(exported: Path, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", str(exported)) == 0
    assert "--public-key" in capsys.readouterr().out
    assert run("verify", str(exported), "--public-key", Signer(settings).public_key.hex()) == 0
    assert "--public-key" not in capsys.readouterr().out
    assert run("verify", str(exported), "--public-key", "00" * 32) == 1


def test_an_earlier_export_is_held_against_a_later_one(exported: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.jsonl"
    later.write_text(exported.read_text())
    assert run("verify", str(later), "--earlier", str(exported)) == 0
    lines = exported.read_text().splitlines()
    later.write_text("\n".join(lines[:60]))
    assert run("verify", str(later), "--earlier", str(exported)) == 1


@pytest.mark.parametrize(
    "arguments", [["missing.jsonl"], ["audit.jsonl", "--public-key", "xyz"], ["audit.jsonl", "--earlier", "other.txt"]]
)
def test_what_cannot_be_read_is_2(arguments: list[str], exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.parent)
    (exported.parent / "other.txt").write_text("hello\n")
    assert run("verify", *arguments) == 2


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(os.urandom(200))
    assert run("verify", str(path)) in (1, 2)


def test_verifying_imports_no_database_and_no_network(exported: Path) -> None:
    program = (
        "import sys; sys.argv[0]='x'\n"
        "import argparse; from deploy import audit_command as c\n"
        "p = argparse.ArgumentParser(); c.add_arguments(p)\n"
        f"code = c.run(p.parse_args(['verify', {str(exported)!r}]))\n"
        "bad = [m for m in ('sqlalchemy', 'sqlmodel', 'psycopg', 'fastapi', 'temporalio', 'httpx2') if m in sys.modules]\n"
        "sys.exit(code or (str(bad) if bad else 0))"
    )
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
