from typing import Any
from uuid import uuid4

from models.domain.journey.portable import Name, Version, ids_in, names_in, ordered, with_ids, with_names

TEMPLATE, VERSION, TOPIC, SEGMENT, JOURNEY, UNKNOWN, MEMBER = (uuid4() for _ in range(7))
PINNED = Version("Welcome", 3, "f00d")
NAMES: dict[tuple[str, Any], Name] = {
    ("template", TEMPLATE): "Welcome",
    ("version", VERSION): PINNED,
    ("topic", TOPIC): "news",
    ("segment", SEGMENT): "Customers",
    ("journey", JOURNEY): "Winback",
}
DRAFT: dict[str, Any] = {
    "start": "template_id",
    "steps": {
        "template_id": {"kind": "send", "template_id": str(TEMPLATE), "template_version_id": str(VERSION), "topic_id": str(TOPIC)},
        "other": {"kind": "send", "template_id": str(UNKNOWN), "topic_id": None},
        "fork": {"kind": "branch", "conditions": [{"when": {"all": [{"segment": str(SEGMENT)}, {"not": {"consent": {"topic": "tips"}}}]}}]},
        "hook": {"kind": "call_webhook", "body": {"template_id": str(TEMPLATE), "segment": {"segment": "theirs"}}},
        "tell": {"kind": "notify_team", "members": [str(MEMBER)]},
        "enter": {"kind": "enter_journey", "journey_id": str(JOURNEY)},
    },
    "entry": {"triggers": [{"kind": "segment_left", "segment_id": str(SEGMENT)}]},
    "idea": ["half", 1.5, None],
}


def test_there_and_back_is_the_same() -> None:
    named = with_names(DRAFT, NAMES)
    assert with_ids(named, {(kind, name): id for (kind, id), name in NAMES.items()}) == DRAFT
    assert str(TEMPLATE) not in str({**named, "steps": {**named["steps"], "hook": None}})


def test_what_is_named_and_where() -> None:
    assert ids_in(DRAFT) == {TEMPLATE, VERSION, TOPIC, SEGMENT, JOURNEY, UNKNOWN}
    named = with_names(DRAFT, NAMES)
    assert sorted((kind, path) for kind, path, _ in names_in(named, "draft")) == [
        ("journey", "draft.steps.enter.journey_id"),
        ("segment", "draft.entry.triggers[0].segment_id"),
        ("segment", "draft.steps.fork.conditions[0].when.all[0].segment"),
        ("template", "draft.steps.template_id.template_id"),
        ("topic", "draft.steps.fork.conditions[0].when.all[1].not.consent.topic"),
        ("topic", "draft.steps.template_id.topic_id"),
        ("version", "draft.steps.template_id.template_version_id"),
    ]


def test_what_does_not_exist_and_what_is_spelt_otherwise_stays() -> None:
    odd = {"steps": {"a": {"template_id": str(TEMPLATE).upper()}, "b": {"template_id": str(UNKNOWN)}, "c": {"template_id": 7}}}
    assert with_names(odd, NAMES) == odd and with_ids(odd, {}) == odd


def test_the_order_of_keys_is_always_the_same() -> None:
    assert list(ordered({"b": [{"d": 1, "c": 2}], "a": 1})) == ["a", "b"]
    assert list(ordered({"b": [{"d": 1, "c": 2}]})["b"][0]) == ["c", "d"]
