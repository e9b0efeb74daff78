from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from models.domain.journey.check import MAX_STEPS, check
from models.domain.journey.content_hash import stored
from models.domain.journey.definition import Definition
from models.domain.journey.facts import ConnectionFact, Facts, TemplateFact, TopicFact

MAIL, EMPTY, OLD, SMS, BARE = (UUID(int=n) for n in range(1, 6))
MAIL_V1, MAIL_V2, SMS_V1, BARE_V1, OLD_V1 = (UUID(int=n) for n in range(11, 16))
NEWS, GONE = UUID(int=21), UUID(int=22)
SMTP, SPARE, TWILIO = UUID(int=31), UUID(int=32), UUID(int=33)
NOBODY = UUID(int=99)
LINK = frozenset({"unsubscribe_url"})

FACTS = Facts(
    templates={
        MAIL: TemplateFact("email", newest_version_id=MAIL_V2, versions={MAIL_V2: LINK, MAIL_V1: frozenset()}),
        BARE: TemplateFact("email", newest_version_id=BARE_V1, versions={BARE_V1: frozenset({"contact.first_name"})}),
        EMPTY: TemplateFact("email"),
        OLD: TemplateFact("email", archived=True, newest_version_id=OLD_V1, versions={OLD_V1: LINK}),
        SMS: TemplateFact("sms", newest_version_id=SMS_V1, versions={SMS_V1: frozenset()}),
    },
    topics={NEWS: TopicFact("news"), GONE: TopicFact("gone", archived=True)},
    connections={SMTP: ConnectionFact("email", is_default=True), SPARE: ConnectionFact("email")},
    attributes={"plan": {"type": "string"}},
)


def send(**fields: Any) -> dict[str, Any]:
    step = {"kind": "send", "template_id": str(MAIL), "topic_id": str(NEWS), **fields}
    return {name: str(value) if isinstance(value, UUID) else value for name, value in step.items()}


def wait(duration: Any = "P1D", **fields: Any) -> dict[str, Any]:
    return {"kind": "wait", "duration": duration, **fields}


def branch(*ways: str | None, otherwise: str | None = None, when: Any = None) -> dict[str, Any]:
    conditions = [{"when": when or {"tag": "vip"}, "next": way} for way in ways]
    return {"kind": "branch", "conditions": conditions, "otherwise": otherwise}


NO_DURATIONS = ("soon", True, 60, 1.5, "60", "1 day", "01:00:00", "P", "PT", "P1DT", "")
NO_ZONES = ("localtime", "Factory", "posixrules", "Mars/Base", "America", "")


def until(zone: str) -> dict[str, Any]:
    return {"kind": "wait", "until": {"time": "09:00", "default_zone": zone}}


def split(weight: Any, **fields: Any) -> dict[str, Any]:
    return {"kind": "split", "arms": [{"weight": weight, **fields}, {"weight": 1}]}


def draft(start: str = "a", **steps: Any) -> dict[str, Any]:
    return {"start": start, "steps": steps}


def found(journey: Any, facts: Facts = FACTS) -> list[tuple[str, str]]:
    return [(problem.path, problem.code) for problem in check(journey, facts)]


@pytest.mark.parametrize(
    "journey",
    [
        draft(a=send()),
        draft(a=send(next="b"), b=wait(next="c"), c=branch("d", otherwise="e"), d=send(), e={"kind": "exit"}),
        draft(a=send(next="b"), b=wait("PT1M", next="a")),  # a loop that waits
        draft(a=branch("b", otherwise="c"), b=wait("PT1H", next="a"), c={"kind": "exit"}),
        draft(a=send(purpose="transactional", topic_id=None, template_id=BARE)),
        draft(a=send(connection_id=SPARE)),
        draft(a=wait("P366D")),
        draft(a=branch("b", when={"field": "run.order", "is": "exists"}), b={"kind": "exit"}),
        draft(a=branch(None, when={"consent": {"topic": "news", "channel": "email", "status": "granted"}})),
    ],
)
def test_a_sound_journey_has_no_problems(journey: dict[str, Any]) -> None:
    assert found(journey) == []


@pytest.mark.parametrize(
    ("journey", "problem"),
    [
        ({}, ("start", "required")),
        ({"start": "a", "steps": {}}, ("steps", "no_steps")),
        ({"start": "a", "steps": {"a": {"kind": "exit"}}, "extra": 1}, ("extra", "unknown_field")),
        ({"language": 2, "start": "a", "steps": {"a": {"kind": "exit"}}}, ("language", "literal_error")),
        (draft("z", a={"kind": "exit"}), ("start", "unknown_step")),
        (draft(a={}), ("steps.a.kind", "required")),
        (draft(a={"kind": "dance"}), ("steps.a.kind", "unknown_kind")),
        (draft(A={"kind": "exit"}), ("steps.A", "malformed_step_id")),
        (draft(a=send(nxet="b")), ("steps.a.nxet", "unknown_field")),
        (draft(a={"kind": "send"}), ("steps.a.template_id", "required")),
        (draft(a={"kind": "wait"}), ("steps.a", "one_of")),
        *((draft(a=wait(wrong)), ("steps.a.duration", "malformed_duration")) for wrong in NO_DURATIONS),
        (draft(a=wait("P1W1Q")), ("steps.a.duration", "malformed_duration")),
        (draft(a=wait(spread=True)), ("steps.a.spread", "malformed_duration")),
        (draft(a=split("50")), ("steps.a.arms[0].weight", "int_type")),
        (draft(a=split(True)), ("steps.a.arms[0].weight", "int_type")),
        (draft(a=split(1, holdout="yes")), ("steps.a.arms[0].holdout", "bool_type")),
        (draft(a=split(1, holdout=True, next="b"), b=send()), ("steps.a.arms[0].next", "holdout_is_sent_to")),
        (
            draft(a=split(1, holdout=True, next="b"), b=wait(next="c"), c=branch(None, otherwise="d"), d=send()),
            ("steps.a.arms[0].next", "holdout_is_sent_to"),
        ),
        ({**draft(a={"kind": "exit"}), "max_visits": True}, ("max_visits", "int_type")),
        ({**draft(a={"kind": "exit"}), "entry": {"maximum": "3"}}, ("entry.maximum", "int_type")),
        ({**draft(a={"kind": "exit"}), "entry": {"cool_down": 60}}, ("entry.cool_down", "malformed_duration")),
        ({**draft(a={"kind": "exit"}), "entry": {"again": "once", "cool_down": "P1D"}}, ("entry.cool_down", "unused")),
        ({**draft(a={"kind": "exit"}), "at_end": "exit"}, ("at_end", "unused")),
        (draft(a={"kind": "exit", "reason": "replayed"}), ("steps.a.reason", "forbidden")),
        ({**draft(a={"kind": "exit"}), "ends_at": 1_577_836_800}, ("ends_at", "malformed_moment")),
        *((draft(a=until(zone)), ("steps.a.until.default_zone", "unknown_zone")) for zone in NO_ZONES),
        (draft(a=send(next="zz")), ("steps.a.next", "unknown_step")),
        (draft(a=branch("zz")), ("steps.a.conditions[0].next", "unknown_step")),
        (draft(a=branch(None, otherwise="zz")), ("steps.a.otherwise", "unknown_step")),
        (draft(a={"kind": "exit"}, b={"kind": "exit"}), ("steps.b", "unreachable_step")),
        (draft(a=send(next="a")), ("steps.a.next", "loop_without_wait")),
        (draft(a=send(next="b"), b=branch("a", otherwise="c"), c={"kind": "exit"}), ("steps.a.next", "loop_without_wait")),
        (draft(a=wait(next="b"), b=send(next="c"), c=send(next="b")), ("steps.b.next", "loop_without_wait")),
        (draft(a=send(template_id=NOBODY)), ("steps.a.template_id", "unknown_template")),
        (draft(a=send(template_id=OLD)), ("steps.a.template_id", "archived_template")),
        (draft(a=send(template_id=SMS)), ("steps.a.template_id", "wrong_channel")),
        (draft(a=send(template_id=EMPTY)), ("steps.a.template_id", "empty_template")),
        (draft(a=send(template_id=BARE)), ("steps.a.template_id", "no_unsubscribe_link")),
        (draft(a=send(template_version_id=MAIL_V1)), ("steps.a.template_id", "no_unsubscribe_link")),
        (draft(a=send(template_version_id=SMS_V1)), ("steps.a.template_version_id", "unknown_template_version")),
        (draft(a=send(topic_id=None)), ("steps.a.topic_id", "required")),
        (draft(a=send(topic_id=NOBODY)), ("steps.a.topic_id", "unknown_topic")),
        (draft(a=send(topic_id=GONE)), ("steps.a.topic_id", "archived_topic")),
        (draft(a=send(connection_id=NOBODY)), ("steps.a.connection_id", "unknown_connection")),
        (draft(a=send(channel="sms", template_id=SMS)), ("steps.a.connection_id", "no_connection")),
        (draft(a=send(channel="sms", template_id=SMS, connection_id=SMTP)), ("steps.a.connection_id", "wrong_channel")),
        (draft(a=branch()), ("steps.a.conditions", "no_conditions")),
        (draft(a=branch(*[None] * 51)), ("steps.a.conditions", "too_many_conditions")),
        (draft(a=branch(None, when={"nonsense": 1})), ("steps.a.conditions[0].when", "rule_shape")),
        (
            draft(a=branch(None, when={"field": "attributes.age", "is": "exists"})),
            ("steps.a.conditions[0].when.field", "unknown_field"),
        ),
        (
            draft(a=branch(None, when={"all": [{"consent": {"topic": "olds", "channel": "email", "status": "granted"}}]})),
            ("steps.a.conditions[0].when.all[0].consent.topic", "unknown_topic"),
        ),
        (draft(a=wait("PT0S")), ("steps.a.duration", "not_positive")),
        (draft(a=wait("-P1D")), ("steps.a.duration", "not_positive")),
        (draft(a=wait("P366DT1S")), ("steps.a.duration", "too_long")),
        (draft(a={"kind": "exit", "reason": "Anna's birthday"}), ("steps.a.reason", "string_pattern_mismatch")),
        ({"start": "s0", "steps": {f"s{n}": {"kind": "exit"} for n in range(MAX_STEPS + 1)}}, ("steps", "too_many_steps")),
    ],
)
def test_each_mistake_is_named_with_its_path(journey: dict[str, Any], problem: tuple[str, str]) -> None:
    assert problem in found(journey)


def test_the_form_of_a_name_is_told_in_words() -> None:
    hook = {
        "kind": "call_webhook",
        "url": "https://example.com/",
        "headers": {"X Source": "a"},
        "save": {"Order": {"path": "a", "type": "string"}},
    }
    told = {problem.path: problem.message for problem in check(draft(a=hook, b={"kind": "exit", "reason": "Anna's"}), FACTS)}
    variable = "Use 1 to 63 lower-case letters, digits and _, beginning with a letter."
    assert told["steps.a.headers.X Source"] == "Use 1 to 100 letters, digits and hyphens, such as X-Source."
    assert told["steps.a.save.Order"] == told["steps.b.reason"] == variable


@pytest.mark.parametrize("journey", [None, 3, "draft", [], {"steps": []}, {"start": None, "steps": {"a": None}}])
def test_nonsense_is_a_problem_and_not_an_error(journey: Any) -> None:
    assert check(journey, FACTS)


def test_all_problems_are_named_at_once() -> None:
    journey = draft(a=send(template_id=NOBODY, topic_id=None, next="zz"), b=wait("PT0S"))
    assert found(journey) == [
        ("steps.a.next", "unknown_step"),
        ("steps.a.template_id", "unknown_template"),
        ("steps.a.topic_id", "required"),
        ("steps.b.duration", "not_positive"),
        ("steps.b", "unreachable_step"),
    ]


def test_each_loop_is_named_once() -> None:
    journey = draft(a=branch("b", "c"), b=send(next="b"), c=branch("d"), d=send(next="c"))
    loops = [path for path, code in found(journey) if code == "loop_without_wait"]
    assert loops == ["steps.b.next", "steps.c.conditions[0].next"]


def test_a_journey_of_the_greatest_size_is_checked() -> None:
    steps = {f"s{n}": send(next=f"s{n + 1}") for n in range(MAX_STEPS - 1)} | {f"s{MAX_STEPS - 1}": {"kind": "exit"}}
    assert found({"start": "s0", "steps": steps}) == []


def test_an_sms_can_be_published_once_there_is_an_sms_connection() -> None:
    facts = Facts(FACTS.templates, FACTS.topics, {**FACTS.connections, TWILIO: ConnectionFact("sms", is_default=True)})
    assert found(draft(a=send(channel="sms", template_id=SMS)), facts) == []


def test_a_rule_beside_a_triggers_segment_is_refused_as_nobody_would_obey_it() -> None:
    trigger = {"kind": "segment_entered", "segment_id": str(NEWS)}
    facts = replace(FACTS, segments={NEWS: {"tag": "new"}})
    journey = draft(a={"kind": "exit"})
    assert found({**journey, "entry": {"triggers": [{**trigger, "rule": None}]}}, facts) == []
    assert found({**journey, "entry": {"triggers": [{**trigger, "rule": {"tag": "old"}}]}}, facts) == [("entry.triggers[0].rule", "unused")]


def test_a_trigger_may_take_any_property_of_the_event_for_its_key() -> None:
    for key, problems in (("orderId", []), ("Order Nr.", []), ("", [("entry.triggers[0].key", "string_too_short")])):
        trigger = {"kind": "event", "event": "ordered", "key": key}
        assert found({**draft(a={"kind": "exit"}), "entry": {"triggers": [trigger]}}) == problems


def test_what_a_journey_that_ends_or_takes_again_obeys_is_no_problem() -> None:
    journey = {**draft(a={"kind": "exit"}), "ends_at": "2026-11-26T00:00:01Z", "at_end": "exit"}
    assert found({**journey, "entry": {"again": "after_exit", "cool_down": "P1D"}}) == []


def test_a_journey_that_has_ended_is_not_published() -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    journey = draft(a={"kind": "exit"})
    for end in ("2020-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2026-11-26T00:00:00Z"):
        assert found({**journey, "ends_at": end}, replace(FACTS, now=now)) == [("ends_at", "in_the_past")]
    assert found({**journey, "ends_at": "2026-11-26T00:00:01Z"}, replace(FACTS, now=now)) == []


@pytest.mark.parametrize("written", ["PT15M", "P3D", "P1DT2H30M", "PT0.5S", "P2W", "P1Y"])
def test_durations_are_read_as_iso_8601_writes_them_and_stored_so_that_they_are_read_again(written: str) -> None:
    step = Definition.model_validate(draft(a=wait(written)))
    assert Definition.model_validate(stored(step)) == step


def test_the_hint_for_a_duration_names_one_that_a_webhook_may_wait() -> None:
    call = {"kind": "call_webhook", "url": "https://example.com/x"}
    [problem] = check(draft(a={**call, "timeout": 5}), FACTS)
    assert (problem.path, problem.code) == ("steps.a.timeout", "malformed_duration") and "PT10S" in problem.message
    assert check(draft(a={**call, "timeout": "PT10S"}), FACTS) == []
