from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from models.domain.journey.content_hash import TemplateContent, freeze_known
from models.domain.journey.definition import Definition
from models.domain.journey.difference import Difference, FieldChange, Side, difference
from models.domain.journey.facts import Facts, TemplateFact

TEMPLATE, FIRST, SECOND = uuid4(), uuid4(), uuid4()
CONTENTS = {FIRST: TemplateContent("email", "Hello", "<p>Hi</p>", "Hi"), SECOND: TemplateContent("email", "Hello again", "<p>Hi</p>", "Hi")}


def journey(version: UUID | None = FIRST, **changes: Any) -> Definition:
    steps: dict[str, Any] = {
        "mail": {"kind": "send", "template_id": TEMPLATE, "template_version_id": version, "next": "pause"},
        "pause": {"kind": "wait", "duration": "P3D", "next": "fork"},
        "fork": {"kind": "branch", "conditions": [{"when": {"tag": "a"}, "next": "end"}], "otherwise": None},
        "end": {"kind": "exit", "reason": "done"},
    }
    steps |= changes.pop("steps", {})
    return Definition.model_validate({"start": "mail", "steps": {id: step for id, step in steps.items() if step}, **changes})


def compare(before: Definition, after: Definition) -> Difference:
    return difference(Side(before, CONTENTS), Side(after, CONTENTS))


def test_the_same_is_no_different() -> None:
    assert compare(journey(), journey()) == Difference((), (), (), (), ())


def test_steps_come_and_go_as_a_whole() -> None:
    found = compare(journey(steps={"nap": {"kind": "wait", "duration": "PT1H"}}), journey(steps={"end": None, "bye": {"kind": "exit"}}))
    assert [step.step_id for step in found.added] == ["bye"]
    assert [(step.step_id, step.step["kind"]) for step in found.removed] == [("end", "exit"), ("nap", "wait")]


def test_a_step_changes_field_by_field() -> None:
    fork = {"kind": "branch", "conditions": [{"when": {"tag": "b"}, "next": "end"}], "otherwise": "end"}
    found = compare(journey(), journey(steps={"pause": {"kind": "wait", "duration": "P5D", "next": "fork"}, "fork": fork}))
    changes = {change.step_id: change.fields for change in found.changed}
    assert changes == {
        "fork": (FieldChange("conditions[0].when.tag", "a", "b"), FieldChange("otherwise", None, "end")),
        "pause": (FieldChange("duration", "P3D", "P5D"),),
    }


def test_a_list_of_another_length_is_one_value_and_a_new_kind_is_named() -> None:
    fork = {"kind": "branch", "conditions": [{"when": {"tag": "a"}, "next": "end"}] * 2}
    pause = {"kind": "wait_for", "events": [{"event": "bought", "next": "fork"}]}
    changes = {change.step_id: change for change in compare(journey(), journey(steps={"fork": fork, "pause": pause})).changed}
    [conditions] = changes["fork"].fields
    assert (conditions.path, len(conditions.before), len(conditions.after)) == ("conditions", 1, 2)
    assert changes["pause"].kind == "wait_for"
    assert FieldChange("kind", "wait", "wait_for") in changes["pause"].fields


def test_the_rules_around_the_steps() -> None:
    changes: dict[str, Any] = {
        "start": "pause",
        "entry": {"again": "once"},
        "max_visits": 7,
        "goals": [{"name": "bought", "event": "bought"}],
    }
    found = compare(journey(), journey(**changes))
    assert {(change.path, change.before) for change in found.rules if change.path != "goals"} == {
        ("start", "mail"),
        ("entry.again", "every_time"),
        ("max_visits", 100),
    }
    [goals] = [change for change in found.rules if change.path == "goals"]
    assert (goals.before, goals.after[0]["name"]) == ([], "bought")
    assert found.changed == ()


def test_what_the_messages_say() -> None:
    found = compare(journey(FIRST), journey(SECOND))
    [template] = found.templates
    assert (template.step_id, template.fields) == ("mail", (FieldChange("subject", "Hello", "Hello again"),))
    assert [change.fields[0].path for change in found.changed] == ["template_version_id"]


def test_a_draft_is_frozen_as_far_as_it_can_be() -> None:
    facts = Facts(templates={TEMPLATE: TemplateFact("email", newest_version_id=SECOND)})
    draft = journey(None, steps={"other": {"kind": "send", "template_id": uuid4()}}, entry={"triggers": [unknown_segment()]})
    frozen = freeze_known(draft, facts).model_dump()
    assert frozen["steps"]["mail"]["template_version_id"] == SECOND
    assert frozen["steps"]["other"] == draft.model_dump()["steps"]["other"]
    assert frozen["entry"] == draft.model_dump()["entry"]
    assert frozen["steps"]["pause"]["duration"] == timedelta(days=3)


def unknown_segment() -> dict[str, Any]:
    return {"kind": "segment_entered", "segment_id": uuid4()}
