from typing import Any

import pytest

from models.domain.errors import Invalid
from models.domain.segment import MAX_DEPTH, MAX_NODES, Vocabulary, parse_rule, walk
from models.domain.segment_values import TYPES_OF

SCHEMA = {
    "plan": {"type": "string"},
    "seats": {"type": "integer"},
    "since": {"type": "date"},
    "langs": {"type": "strings"},
    "ok": {"type": "boolean"},
}


def problems(rule: Any, vocabulary: Vocabulary | None = None) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        parse_rule(rule, vocabulary or Vocabulary(SCHEMA))
    return [(problem.path, problem.code) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("rule", "path", "code"),
    [
        ("everyone", "rule", "rule_shape"),
        ({}, "rule", "rule_shape"),
        ({"all": [{"tag": "x"}, {"none": []}]}, "rule.all[1]", "rule_shape"),
        ({"any": []}, "rule.any", "too_short"),
        ({"tag": "x", "field": "email"}, "rule.is", "missing"),
        ({"field": "email", "is": "like", "value": "x"}, "rule.is", "literal_error"),
        ({"field": "nope", "is": "exists"}, "rule.field", "unknown_field"),
        ({"field": "organization_id", "is": "exists"}, "rule.field", "unknown_field"),
        ({"field": "attributes.nope", "is": "exists"}, "rule.field", "unknown_field"),
        ({"field": "run.x", "is": "exists"}, "rule.field", "unknown_field"),
        ({"field": "email", "is": "greater", "value": 1}, "rule.is", "wrong_operator"),
        ({"field": "email", "is": "exists", "value": 1}, "rule.value", "unexpected"),
        ({"field": "email", "is": "equals"}, "rule.value", "wrong_type"),
        ({"field": "email", "is": "equals", "value": ""}, "rule.value", "wrong_length"),
        ({"field": "email", "is": "equals", "value": "a\x00"}, "rule.value", "not_storable"),
        ({"field": "email", "is": "equals", "value": "\ud800"}, "rule.value", "not_storable"),
        ({"field": "email", "is": "in", "value": []}, "rule.value", "not_a_list"),
        ({"field": "attributes.plan", "is": "equals", "value": 1}, "rule.value", "wrong_type"),
        ({"field": "attributes.seats", "is": "equals", "value": True}, "rule.value", "wrong_type"),
        ({"field": "attributes.seats", "is": "greater", "value": "3"}, "rule.value", "wrong_type"),
        ({"field": "attributes.seats", "is": "greater", "value": float("inf")}, "rule.value", "wrong_type"),
        ({"field": "attributes.ok", "is": "in", "value": [True]}, "rule.is", "wrong_operator"),
        ({"field": "attributes.since", "is": "equals", "value": "2026-02-30"}, "rule.value", "wrong_type"),
        ({"field": "attributes.since", "is": "before", "value": "tomorrow"}, "rule.value", "not_a_moment"),
        ({"field": "attributes.since", "is": "before", "value": "2026-01-01T00:00:00"}, "rule.value", "not_a_moment"),
        ({"field": "attributes.since", "is": "before", "value": {"ago": "7 days"}}, "rule.value", "not_a_duration"),
        ({"field": "attributes.since", "is": "within_last", "value": "P"}, "rule.value", "not_a_duration"),
        ({"field": "attributes.since", "is": "within_last", "value": "P1DT"}, "rule.value", "not_a_duration"),
        ({"field": "attributes.langs", "is": "equals", "value": "en"}, "rule.is", "wrong_operator"),
        ({"consent": {"channel": "email", "status": "granted"}}, "rule.consent", "value_error"),
        ({"consent": {"topic": "x", "channel": "fax", "status": "granted"}}, "rule.consent.channel", "literal_error"),
        ({"not": {"not": {"any": [{"tag": ""}]}}}, "rule.not.not.any[0].tag", "string_too_short"),
    ],
)
def test_a_mistake_is_named_by_its_path(rule: Any, path: str, code: str) -> None:
    assert (path, code) in problems(rule)


def test_every_mistake_is_named_at_once() -> None:
    rule = {"all": [{"field": "nope", "is": "exists"}, {"field": "email", "is": "less", "value": 1}]}
    assert [path for path, _ in problems(rule)] == ["rule.all[0].field", "rule.all[1].is"]


def test_a_branch_reads_the_runs_variables_of_any_type() -> None:
    rule = {"any": [{"field": "run.amount", "is": "greater", "value": 3}, {"field": "run.due", "is": "within_next", "value": "PT1H"}]}
    assert len(list(walk(parse_rule(rule, Vocabulary(SCHEMA, run=True))))) == 3


def test_depth_and_size_are_limited_even_for_hostile_documents() -> None:
    deep: dict[str, Any] = {"tag": "x"}
    for _ in range(100_000):
        deep = {"not": deep}
    assert problems(deep) == [("rule", "too_deep")]
    assert problems({"all": [{"tag": "x"}] * MAX_NODES}) == [("rule", "too_large")]
    fitting: dict[str, Any] = {"tag": "x"}
    for _ in range(MAX_DEPTH - 1):
        fitting = {"not": fitting}
    assert parse_rule(fitting)


def test_tags_in_rules_are_written_as_tags_are_kept() -> None:
    assert parse_rule({"tag": "  Big   SPENDER "}) == parse_rule({"tag": "big spender"})


def test_every_operator_takes_some_type_of_value() -> None:
    assert all(TYPES_OF.values())
