"""What a validator says is told in words."""

import ast
from collections.abc import Iterator

import pytest
from pydantic import BaseModel, Field, ValidationError

from deploy.environment import ROOT
from models.domain.phrases import FORMS, plain_message


def patterns() -> Iterator[str]:
    """Those that the code demands of fields."""
    for path in (file for folder in ("api", "activities", "workflows", "models") for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "pattern":
                assert isinstance(node.value, ast.Constant), f"{path}: write the pattern where it is demanded"
                yield str(node.value.value)


def test_every_pattern_of_a_field_has_words_and_no_other() -> None:
    assert {*patterns()} == FORMS.keys()


@pytest.mark.parametrize("pattern", [*FORMS, "^unheard of$"])
def test_a_pattern_is_never_shown(pattern: str) -> None:
    class Formed(BaseModel):
        text: str = Field(pattern=pattern)

    with pytest.raises(ValidationError) as refused:
        Formed(text="\x00 \n!\x1f")
    [error] = refused.value.errors()
    message = plain_message(error)
    assert "^" not in message and message.endswith(".") and message == FORMS.get(pattern, message)
