from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from models.domain.journey.check import check
from models.domain.journey.definition import Step
from models.domain.journey.facts import Facts
from models.domain.journey.happening import Happening, Names
from models.domain.journey.run import RunState
from models.domain.journey.sentences import sentence
from models.domain.journey.steps.base import Answer, Go
from models.domain.journey.steps.call_webhook import CallWebhookStep
from models.domain.journey.steps.update_contact import Refused, UpdateContactStep

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
STATE = RunState(run_id=UUID(int=1), contact_id=UUID(int=2), step_id="a")
HOOK = {"kind": "call_webhook", "url": "https://example.com/hook", "next": "b"}
FACTS = Facts(attributes={"plan": {"type": "string"}, "renews_on": {"type": "date"}, "seats": {"type": "integer"}})


def step(**fields: Any) -> Any:
    return TypeAdapter(Step).validate_python(fields)


def found(**fields: Any) -> list[tuple[str, str]]:
    return [(problem.path, problem.code) for problem in check({"start": "a", "steps": {"a": fields}}, FACTS)]


def test_what_was_done_is_told_and_the_run_goes_on() -> None:
    outcome = step(**HOOK).answered(STATE, Answer(details={"status": 200}), NOW)
    assert outcome == Go("b", "called_webhook", None, {"status": 200})


@pytest.mark.parametrize(("on_failure", "next"), [("attention", "b"), ("path", "c")])
def test_what_was_not_done_goes_on_or_takes_the_way_for_failures(on_failure: str, next: str) -> None:
    made = step(**HOOK, on_failure=on_failure, failed="c" if on_failure == "path" else None)
    assert made.answered(STATE, Answer(refused=True, reason="webhook_answered_404"), NOW) == Go(next, "not_done", "webhook_answered_404")


def test_the_headers_that_prove_who_called_are_ours_to_set() -> None:
    for name in ("Webhook-Signature", "webhook-id", "Host", "Content-Type", "COOKIE", "Transfer-Encoding"):
        assert (f"steps.a.headers.{name}", "forbidden") in found(kind="call_webhook", url="https://example.com/", headers={name: "x"})


def test_what_looks_like_a_template_in_a_header_is_refused_with_the_way_out() -> None:
    hook = {"kind": "call_webhook", "url": "https://example.com/", "headers": {"X-Order": "{{ run.v }}", "Authorization": "Bearer {t}"}}
    [problem] = check({"start": "a", "steps": {"a": hook}}, FACTS)
    assert (problem.path, problem.code) == ("steps.a.headers.X-Order", "not_a_template") and "body" in problem.message


@pytest.mark.parametrize("path", ["a.b", "a.0", "b", "a.-1", "a.1.x", "a.0.x"])
def test_a_path_that_leads_nowhere_finds_nothing(path: str) -> None:
    made: CallWebhookStep = step(**HOOK, save={"x": {"path": path, "type": "string"}})
    values, missed = made.kept({"a": [None, "text"]})
    assert (values, missed) == ({}, {"x": "absent"})


def test_a_path_goes_by_keys_and_indexes() -> None:
    made: CallWebhookStep = step(**HOOK, save={"x": {"path": "a.1", "type": "string"}, "y": {"path": "0", "type": "number"}})
    assert made.kept({"a": [None, "text"], "0": 1}) == ({"x": "text", "y": 1}, {})


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"attributes": {"plan": 1}}, ("steps.a.attributes.plan", "wrong_type")),
        ({"attributes": {"renews_on": "soon"}}, ("steps.a.attributes.renews_on", "wrong_type")),
        ({"attributes": {"color": "red"}}, ("steps.a.attributes.color", "unknown_attribute")),
        ({"attributes": {"plan": "{{ event.plan }}"}}, ("steps.a.attributes.plan", "not_a_template")),
        ({"attributes": {"renews_on": "{% if run.v %}2026-05-01{% endif %}"}}, ("steps.a.attributes.renews_on", "not_a_template")),
        ({"add_tags": ["  "]}, ("steps.a.add_tags[0]", "empty")),
        ({"add_tags": ["{{ run.v }}"]}, ("steps.a.add_tags[0]", "not_a_template")),
        ({"remove_tags": ["{% if run.v %}x{% endif %}"]}, ("steps.a.remove_tags[0]", "not_a_template")),
        ({"add_tags": ["a;b"]}, ("steps.a.add_tags[0]", "tag_character")),
        ({"remove_tags": ["x" * 65]}, ("steps.a.remove_tags[0]", "tag_too_long")),
        ({}, ("steps.a", "wrong_number")),
    ],
)
def test_a_change_that_can_never_be_made_is_not_published(fields: dict[str, Any], problem: tuple[str, str]) -> None:
    assert found(kind="update_contact", **fields) == [problem]


def test_a_template_in_an_attribute_is_refused_with_the_way_out_and_a_version_that_has_one_goes_on_as_it_is() -> None:
    fields = {"kind": "update_contact", "attributes": {"plan": "{{ event.plan }}"}}
    [problem] = check({"start": "a", "steps": {"a": fields}}, FACTS)
    assert problem.path == "steps.a.attributes.plan" and '{"run": "plan"}' in problem.message
    made: UpdateContactStep = step(**fields)
    assert made.new_attributes({"plan": "gold"}, FACTS.attributes or {}) == {"plan": "{{ event.plan }}"}


def test_a_change_that_can_be_made_is() -> None:
    fields = {"attributes": {"plan": None, "seats": {"run": "seats"}, "renews_on": "2026-05-01"}, "add_tags": ["VIP"]}
    assert found(kind="update_contact", **fields) == []


def test_values_take_the_form_that_is_stored() -> None:
    made: UpdateContactStep = step(kind="update_contact", attributes={"seats": {"run": "n"}, "plan": None}, add_tags=("B  b",))
    assert made.new_attributes({"n": 3.0}, FACTS.attributes or {}) == {"seats": 3, "plan": None}
    assert made.new_tags(["a"]) == ["a", "b b"]


def test_a_run_without_the_value_is_refused() -> None:
    made: UpdateContactStep = step(kind="update_contact", attributes={"seats": {"run": "n"}})
    with pytest.raises(Refused, match="no_variable:n"):
        made.new_attributes({}, FACTS.attributes or {})


@pytest.mark.parametrize(("value", "reason"), [("x" * 4_001, "too_long:plan"), ("\x00", "not_storable:plan"), (1, "wrong_type:plan")])
def test_a_value_that_does_not_fit_is_refused_for_what_is_wrong_with_it(value: Any, reason: str) -> None:
    made: UpdateContactStep = step(kind="update_contact", attributes={"plan": {"run": "n"}})
    with pytest.raises(Refused) as refused:
        made.new_attributes({"n": value}, FACTS.attributes or {})
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("https://пример.рф/x", "punycode"),
        ("https://example.com/é", "percent"),
        ("https://a:b@example.com/é", "credentials"),
        ("x", "http"),
    ],
)
def test_an_address_is_refused_for_what_is_wrong_with_it(url: str, word: str) -> None:
    [problem] = check({"start": "a", "steps": {"a": {"kind": "call_webhook", "url": url}}}, FACTS)
    assert (problem.path, problem.code) == ("steps.a.url", "malformed_url") and word in problem.message


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        ("contact_updated", None, 'Changed the contact at "a"'),
        ("not_done", "wrong_type:plan", 'Did nothing at "a": the value for plan is not of the attribute\'s type'),
        ("not_done", "too_long:plan", 'Did nothing at "a": the value for plan is longer than an attribute\'s text may be'),
        ("not_done", "body_too_large", 'Did nothing at "a": what would be said is too large'),
        ("not_done", "webhook_answered_404", 'The call at "a" was not successful: the other system answered 404'),
        ("not_done", "webhook_timeout", 'The call at "a" was not successful: the other system did not answer in time'),
        (
            "parked",
            "gave_up:webhook_answered_500",
            'Needs attention at "a": the other system could not be told after many tries (answered 500); it may have heard one of them',
        ),
    ],
)
def test_the_timeline_says_what_was_done(kind: str, reason: str | None, words: str) -> None:
    assert sentence(Happening(kind, Names({"a": "a"}), "a", 1, reason)) == words
