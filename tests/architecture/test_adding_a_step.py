"""docs/adding-a-step.md says what the code is: a kind of step lives in at most five files."""

import re
from pathlib import Path
from typing import get_args

import pytest

from activities.effects.registry import EFFECTS
from deploy.environment import ROOT
from models.domain.journey.definition import Step
from models.domain.journey.steps.base import StepModel
from models.domain.simulation.effects import EFFECTS as SIMULATED

GUIDE = (ROOT / "docs/adding-a-step.md").read_text()
SOURCES = [path for package in ("models", "activities", "workflows", "api") for path in sorted((ROOT / package).rglob("*.py"))]
KINDS: dict[str, type[StepModel]] = {step.model_fields["kind"].default: step for step in get_args(get_args(Step)[0])}
EFFECT_KINDS = [kind for kind, step in KINDS.items() if step.question == "perform_steps"]


def names(*words: str) -> set[str]:
    """The files of the product in which one of these words stands."""
    wanted = re.compile(rf"\b({'|'.join(words)})\b")
    return {str(path.relative_to(ROOT)) for path in SOURCES if wanted.search(path.read_text())}


def home(kind: str) -> str:
    """The file of its class, by its name in the package of steps."""
    return Path(KINDS[kind].__module__.replace(".", "/")).name


def test_every_kind_that_does_something_has_its_line_in_the_registry() -> None:
    assert {*EFFECTS} == {*EFFECT_KINDS}


def test_and_one_among_what_is_simulated() -> None:
    assert {*SIMULATED} == {*EFFECT_KINDS}


@pytest.mark.parametrize("kind", sorted({*EFFECTS} - {"subscribe", "unsubscribe"}))  # everyday words, which other subjects use too
def test_no_other_file_knows_a_kind_that_does_something(kind: str) -> None:
    allowed = {
        f"models/domain/journey/steps/{kind}.py",
        "models/domain/journey/definition.py",
        f"activities/effects/{kind}.py",
        "models/domain/simulation/effects.py",
    }
    assert names(kind, KINDS[kind].__name__) <= allowed


@pytest.mark.parametrize("kind", ["exit", "subscribe", "unsubscribe"])
def test_no_other_file_knows_its_class(kind: str) -> None:
    where = [f"{package}/{home(kind)}.py" for package in ("models/domain/journey/steps", "activities/effects")]
    allowed = {"models/domain/journey/definition.py", "models/domain/simulation/effects.py", *where}
    assert names(KINDS[kind].__name__) <= allowed


@pytest.mark.parametrize("kind", sorted(EFFECTS))
def test_designers_can_read_of_it(kind: str) -> None:
    assert f"| `{kind}` |" in (ROOT / "docs/journeys.md").read_text()


QUOTED = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("code", QUOTED, ids=range(len(QUOTED)))
def test_what_the_guide_quotes_stands_so_in_the_code(code: str) -> None:
    assert any(code in path.read_text() for path in SOURCES)


@pytest.mark.parametrize("path", re.findall(r"`((?:models|activities|tests|docs)/[\w/.-]+\.\w+)`", GUIDE))
def test_the_files_that_the_guide_names_exist(path: str) -> None:
    assert (ROOT / path).exists()
