import subprocess
import sys

import pytest

import leadstats
from deploy.environment import ROOT


def test_every_command_is_listed_without_importing_any() -> None:
    script = """
import sys, leadstats
try:
    leadstats.main(['--help'])
except SystemExit:
    print([name for name in sys.modules if name.startswith('deploy')])
"""
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(name in answer.stdout for name in leadstats.COMMANDS)
    assert answer.stdout.rstrip().endswith("[]")


def test_a_command_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(leadstats, "COMMANDS", {"fly": leadstats.Command("deploy.fly", "")})
    with pytest.raises(SystemExit) as refusal:
        leadstats.main(["fly", "--high"])
    assert refusal.value.code == 2
    assert "does not bring the command (deploy.fly is missing)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["up", "api", "worker", "sandbox", "migrate", "doctor"])
def test_each_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        leadstats.main([name, "--help"])
    assert end.value.code == 0
    assert f"leadstats {name}" in capsys.readouterr().out


def test_a_part_without_its_environment_names_what_is_missing() -> None:
    answer = subprocess.run([sys.executable, ROOT / "leadstats.py", "worker"], env={}, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "DATABASE_APP_URL is not set" in answer.stderr
