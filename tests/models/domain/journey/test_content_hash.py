from dataclasses import replace
from uuid import UUID

import pytest

from models.domain.journey.content_hash import TemplateContent, content_hash, freeze, stored, template_version_ids, thawed
from models.domain.journey.definition import Definition, SendStep
from models.domain.journey.facts import ConnectionFact, Facts, TemplateFact

TEMPLATE, V1, V2, SMTP, SPARE = (UUID(int=n) for n in range(1, 6))
FACTS = Facts(
    templates={TEMPLATE: TemplateFact("email", newest_version_id=V2, versions={V2: frozenset(), V1: frozenset()})},
    connections={SPARE: ConnectionFact("email"), SMTP: ConnectionFact("email", is_default=True)},
)
DEFINITION = Definition.model_validate(
    {
        "start": "a",
        "steps": {"a": {"kind": "send", "template_id": TEMPLATE, "next": "b"}, "b": {"kind": "wait", "duration": "P3D"}},
    }
)
CONTENTS = {V1: TemplateContent("email", "Hi", "<p>Hi</p>", "Hi"), V2: TemplateContent("email", "Hello", "<p>Hello</p>", "Hello")}


def only_send(definition: Definition) -> SendStep:
    step = definition.steps["a"]
    assert isinstance(step, SendStep)
    return step


def test_freezing_names_the_newest_template_version_and_the_default_connection() -> None:
    step = only_send(freeze(DEFINITION, FACTS))
    assert (step.template_version_id, step.connection_id) == (V2, SMTP)


def test_freezing_keeps_what_the_designer_chose() -> None:
    chosen = only_send(DEFINITION).model_copy(update={"template_version_id": V1, "connection_id": SPARE})
    definition = DEFINITION.model_copy(update={"steps": {**DEFINITION.steps, "a": chosen}})
    assert freeze(definition, FACTS) == definition


def test_the_hash_covers_what_the_templates_say() -> None:
    frozen = freeze(DEFINITION, FACTS)
    assert template_version_ids(frozen) == [V2]
    before = content_hash(frozen, CONTENTS)
    for part in ("channel", "subject", "html", "text"):
        assert content_hash(frozen, {V2: replace(CONTENTS[V2], **{part: "other"})}) != before
    assert content_hash(frozen, {V2: CONTENTS[V2]}) == before  # templates that are not named do not count


def test_the_hash_covers_the_definition_but_not_the_order_it_was_written_in() -> None:
    frozen = freeze(DEFINITION, FACTS)
    turned = frozen.model_copy(update={"steps": dict(reversed(frozen.steps.items()))})
    assert content_hash(turned, CONTENTS) == content_hash(frozen, CONTENTS)
    renamed = frozen.model_copy(update={"steps": {**frozen.steps, "a": only_send(frozen).model_copy(update={"name": "Hi"})}})
    assert content_hash(renamed, CONTENTS) != content_hash(frozen, CONTENTS)


def test_the_stored_definition_gives_the_same_hash_again() -> None:
    frozen = freeze(DEFINITION, FACTS)
    again = Definition.model_validate(stored(frozen))
    assert content_hash(again, CONTENTS) == content_hash(frozen, CONTENTS)


def test_a_template_without_contents_cannot_be_hashed() -> None:
    with pytest.raises(KeyError):
        content_hash(freeze(DEFINITION, FACTS), {})


def test_a_thawed_version_leaves_open_what_freezing_fills_in() -> None:
    journey, segment = UUID(int=7), UUID(int=8)
    arms = [{"weight": 1}, {"weight": 1}]
    draft = {
        "start": "a",
        "steps": {
            "a": {"kind": "send", "template_id": TEMPLATE, "next": "own"},
            "own": {"kind": "split", "arms": [{"weight": 1, "next": "chosen"}, {"weight": 1}]},
            "chosen": {"kind": "split", "arms": arms, "seed": "as in the other"},
        },
        "entry": {"triggers": [{"kind": "segment_left", "segment_id": segment}, {"kind": "event", "event": "e"}]},
    }
    definition = Definition.model_validate(draft)
    frozen = stored(freeze(definition, replace(FACTS, segments={segment: {"tag": "old"}}, journey_id=journey)))
    assert frozen["steps"]["own"]["seed"] == str(journey)
    assert Definition.model_validate(thawed(frozen, journey)) == definition
