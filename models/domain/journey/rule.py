"""A branch's condition, as far as it can be judged before a run arrives. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.domain.errors import Invalid, Problem
from models.domain.journey.facts import Facts
from models.domain.segment import ConsentRule, Vocabulary, parse_rule, walk


def rule_problems(rule: Mapping[str, Any], facts: Facts, path: str) -> Iterator[Problem]:
    """What is wrong with the rule, each problem's path beginning with `path`; nothing when it can be evaluated."""
    try:
        parsed = parse_rule(rule, Vocabulary(attributes=facts.attributes, run=True), path)
    except Invalid as error:
        yield from error.problems
        return
    keys = {topic.key for topic in facts.topics.values()}
    for where, part in walk(parsed, path):
        if isinstance(part, ConsentRule):
            question = part.consent
            if question.topic is not None and question.topic not in keys:
                yield Problem(f"{where}.consent.topic", "unknown_topic", f"There is no topic with the key {question.topic!r}.")
            if question.topic_id is not None and question.topic_id not in facts.topics:
                yield Problem(f"{where}.consent.topic_id", "unknown_topic", "There is no topic with this id.")
