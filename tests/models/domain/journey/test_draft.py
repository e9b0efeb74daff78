from typing import Any

import pytest

from models.domain.journey.draft import MAX_BYTES, MAX_DEPTH, storable


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, "ä\U0001f600"]}, nested(MAX_DEPTH)])
def test_any_json_may_be_kept(value: Any) -> None:
    assert storable(value, "draft") == []


@pytest.mark.parametrize(
    ("value", "path", "code"),
    [
        ({"a": ["x", "\x00"]}, "draft.a[1]", "unstorable_text"),
        ({"a": "\ud800"}, "draft.a", "unstorable_text"),
        ({"\x00": 1}, "draft", "unstorable_text"),
        ({"a": {"b": float("nan")}}, "draft.a.b", "not_finite"),
        ({"a": float("-inf")}, "draft.a", "not_finite"),
        ({"a": "x" * MAX_BYTES}, "draft", "too_large"),
        ({"a": "ä" * (MAX_BYTES // 2)}, "draft", "too_large"),
        (nested(MAX_DEPTH + 1), "draft" + ".a" * (MAX_DEPTH + 1), "too_deep"),
    ],
)
def test_what_postgresql_cannot_hold_is_refused_with_its_path(value: Any, path: str, code: str) -> None:
    assert [(problem.path, problem.code) for problem in storable(value, "draft")] == [(path, code)]


def test_a_hostile_depth_is_no_error() -> None:
    assert storable(nested(900), "draft")[0].code == "too_deep"
