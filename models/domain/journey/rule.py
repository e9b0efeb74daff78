"""A rule in a journey, as far as it can be judged before a run arrives. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from models.domain.errors import Invalid, Problem
from models.domain.journey.facts import Facts
from models.domain.segment import ConsentRule, SegmentRule, Vocabulary, parse_rule, walk


def rule_problems(rule: Mapping[str, Any], facts: Facts, path: str, *, run: bool = True, event: bool = False) -> Iterator[Problem]:
    """What is wrong with the rule, each problem's path beginning with `path`; nothing when it can be evaluated.

    `run`: there is a run, whose variables it may read; `event`: there is an event, likewise its properties.
    """
    try:
        parsed = parse_rule(rule, Vocabulary(attributes=facts.attributes, run=run, event=event, segments=True), path)
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
        if isinstance(part, SegmentRule) and part.segment not in facts.segments:
            yield Problem(f"{where}.segment", "unknown_segment", "There is no segment with this id.")
