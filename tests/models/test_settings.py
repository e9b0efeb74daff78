import base64
import re

import pytest

from deploy.environment import ROOT
from models.settings import MAXIMUM_PAGE_SIZE, Settings, variable

ENVIRONMENT = {"DATABASE_APP_URL": "postgresql://app:pw@db/leads", "LEADSTATS_SECRET_KEY": base64.b64encode(b"k" * 32).decode()}


@pytest.mark.parametrize("size", ["1", "200", "300"])
def test_a_page_size_within_temporals_limits_is_taken(size: str) -> None:
    assert Settings.from_environment(ENVIRONMENT | {"LEADSTATS_PAGE_SIZE": size}).page_size == int(size) <= MAXIMUM_PAGE_SIZE


@pytest.mark.parametrize("size", ["0", "-1", "301", "1000", "many", ""])
def test_another_page_size_is_refused_by_the_variables_name(size: str) -> None:
    with pytest.raises(ValueError, match=r"^LEADSTATS_PAGE_SIZE: "):
        Settings.from_environment(ENVIRONMENT | {"LEADSTATS_PAGE_SIZE": size})


def test_every_wrong_variable_is_named_and_no_value_is_shown() -> None:
    wrong = {"LEADSTATS_API_PORT": "hunter2", "LEADSTATS_POOL_SIZE": "hunter3"}
    with pytest.raises(ValueError, match=r"LEADSTATS_API_PORT: .*LEADSTATS_POOL_SIZE: ") as caught:
        Settings.from_environment(ENVIRONMENT | wrong)
    assert "hunter" not in str(caught.value)


def test_every_setting_is_read_somewhere() -> None:
    sources = [path for package in ("activities", "api", "deploy", "models", "workflows") for path in (ROOT / package).rglob("*.py")]
    code = "".join(path.read_text() for path in [*sources, ROOT / "worker.py"] if path.name != "settings.py")
    assert [name for name in Settings.model_fields if not re.search(rf"\.{name}\b", code)] == []


def test_every_setting_stands_in_the_table_of_the_environment() -> None:
    section = (ROOT / "docs/operating.md").read_text().split("## Environment\n")[1].split("\n## ")[0]
    named = {name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}
    assert [field for field in Settings.model_fields if variable(field) not in named] == []


@pytest.mark.parametrize("value", ["", "mail.internal:587", " 10.0.0.5:25 , [fd00::5]:443,shop_1.internal:8080,"])
def test_private_destinations_that_are_hosts_and_ports_are_taken(value: str) -> None:
    assert Settings.from_environment(ENVIRONMENT | {"LEADSTATS_PRIVATE_DESTINATIONS": value}).private_destinations == value


@pytest.mark.parametrize(
    "wrong",
    ["hunter2", "10.0.0.5", "10.0.0.5:", ":25", "10.0.0.5:smtp", "10.0.0.5:0", "10.0.0.5:70000", "http://a:80", "fd00::5:443", "a:1 b:2"],
)
def test_other_private_destinations_are_refused_by_the_variables_name(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"^LEADSTATS_PRIVATE_DESTINATIONS: .*host:port.*entry 2") as caught:
        Settings.from_environment(ENVIRONMENT | {"LEADSTATS_PRIVATE_DESTINATIONS": f"mail.internal:587,{wrong}"})
    assert "hunter" not in str(caught.value)
