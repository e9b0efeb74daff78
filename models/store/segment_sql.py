"""Segment rules as SQL: one boolean expression, every value bound.

The expression is about `c`, a row of contacts, and, where a rule reads `run.<variable>` or `event.<property>`, `r`, a row of
runs, and `e`, a row of events. It is true or false, never NULL: each test says itself what a missing value means, so NOT is plain NOT.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from models.domain.errors import Invalid
from models.domain.segment import (
    MOMENT_FIELDS,
    NEGATIONS,
    AnyRule,
    ConsentQuestion,
    ConsentRule,
    Either,
    EventQuestion,
    EventRule,
    Every,
    FieldRule,
    Negation,
    SegmentRule,
    TagRule,
    parse_rule,
    run_reference,
)
from models.domain.segment_values import DATE, DATE_TIME, EARLIEST, LATEST, resolve_moment, shift

# Text that is compared without regard to case is compared in one case, so that an index on it serves.
_FOLDED = {"email": "c.email_key", "country": "c.country", "locale": "lower(c.locale)"}
_COMPARISONS = {"greater": ">", "less": "<", "at_least": ">=", "at_most": "<=", "before": "<", "after": ">"}
_DOCUMENTS = {"attributes": "c.attributes", "run": "r.variables", "event": "e.properties"}


@dataclass(frozen=True)
class CompiledRule:
    """`sql` refers to `parameters` by names that no other rule (or moment) shares."""

    sql: str
    parameters: dict[str, Any]


def compile_rule(rule: Mapping[str, Any], now: datetime) -> CompiledRule:
    """The rule as SQL at `now` (aware), which moments relative to now are counted from.

    Raises:
        Invalid: the rule is malformed.
    """
    parsed = parse_rule(dict(rule))
    identity = json.dumps(rule, sort_keys=True, default=str) + now.isoformat()
    compiler = _Compiler(now, "s" + hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()[:10])
    return CompiledRule(compiler.compile(parsed), compiler.parameters)


@dataclass
class _Compiler:
    now: datetime
    prefix: str
    parameters: dict[str, Any] = field(default_factory=dict)

    def compile(self, rule: AnyRule) -> str:
        match rule:
            case Every(all=parts):
                return "(" + " AND ".join(map(self.compile, parts)) + ")" if parts else "TRUE"
            case Either(any=parts):
                return "(" + " OR ".join(map(self.compile, parts)) + ")"
            case Negation(rule=part):
                return f"NOT ({self.compile(part)})"
            case TagRule(tag=tag):
                return f"c.tags @> ARRAY[{self.bind(tag, 'text')}]"
            case ConsentRule(consent=question):
                return self.consent(question)
            case EventRule(event=happened):
                return self.happened(happened)
            case SegmentRule():
                raise Invalid.field("rule.segment", "no_segments", "Publishing puts a segment's rule in its place; here there is none.")
            case FieldRule(operator=operator) if operator in NEGATIONS:
                return f"NOT ({self.test(rule, NEGATIONS[operator])})"
            case FieldRule(operator=operator):
                return self.test(rule, operator)

    def bind(self, value: Any, sql_type: str) -> str:
        name = f"{self.prefix}_{len(self.parameters)}"
        self.parameters[name] = value
        return f"CAST(:{name} AS {sql_type})"

    def consent(self, question: ConsentQuestion) -> str:
        """The newest line of the ledger decides, as in models.store.consents."""
        if question.topic_id is not None:
            topic = self.bind(question.topic_id, "uuid")
        else:
            topic = (
                f"(SELECT t.id FROM topics t WHERE t.organization_id = c.organization_id AND t.key = {self.bind(question.topic, 'text')})"
            )
        current = (
            "SELECT k.status FROM consents k WHERE k.organization_id = c.organization_id AND k.contact_id = c.id"
            f" AND k.channel = {self.bind(question.channel, 'text')} AND k.topic_id = {topic}"
            " ORDER BY k.occurred_at DESC, k.id DESC LIMIT 1"
        )
        return f"COALESCE(({current}), 'none') = {self.bind(question.status, 'text')}"

    def happened(self, question: EventQuestion) -> str:
        """`e` is the event, inside as in a rule about one event."""
        tests = [
            "e.organization_id = c.organization_id",
            "e.contact_id = c.id",
            f"e.name = {self.bind(question.name, 'text')}",
        ]
        if question.within is not None:
            tests.append(self.moment_test("within_last", question.within, "e.occurred_at"))
        if question.since is not None:
            tests.append("coalesce(e.seq > r.entry_seq, e.created_at >= r.created_at)")
        if question.where is not None:
            tests.append(self.compile(question.where))
        found = f"FROM events e WHERE {' AND '.join(tests)}"
        if question.at_least == 1:
            return f"EXISTS (SELECT 1 {found})"
        limit = self.bind(question.at_least, "int")
        return f"(SELECT count(*) FROM (SELECT 1 {found} LIMIT {limit}) happened) >= {limit}"

    def test(self, rule: FieldRule, operator: str) -> str:
        namespace, _, key = rule.field.partition(".")
        if not key:
            column = f"c.{rule.field}"  # one of the fixed names that parse_rule lets through
            present = f"{_FOLDED.get(rule.field, column)} IS NOT NULL"
            return present if operator == "exists" else f"({present} AND {self.column_test(rule, operator, column)})"
        document = f"({_DOCUMENTS[namespace]} -> {self.bind(key, 'text')})"
        if (variable := run_reference(rule.value)) is not None:
            same = f"{document} = (r.variables -> {self.bind(variable, 'text')})"
            return f"COALESCE({same} AND {document} <> 'null', FALSE)"  # null is no value: a sender may leave ids null
        return self.json_test(rule.value, operator, document)

    def column_test(self, rule: FieldRule, operator: str, column: str) -> str:
        if rule.field in MOMENT_FIELDS:
            return self.moment_test(operator, rule.value, column)
        folded = _FOLDED.get(rule.field, column)
        if operator in ("equals", "in"):
            values = rule.value if operator == "in" else [rule.value]
            values = [_fold(rule.field, value) for value in values]
            return f"{folded} = ANY({self.bind(values, 'text[]')})" if operator == "in" else f"{folded} = {self.bind(values[0], 'text')}"
        return self.text_test(operator, rule.value, column)

    def json_test(self, value: Any, operator: str, document: str) -> str:
        """A test on a JSON value: false where the value is missing, null or of another type."""
        match operator:
            case "exists":
                return f"COALESCE(jsonb_typeof({document}), 'null') <> 'null'"
            case "equals":
                return f"COALESCE({document} = {self.bind(json.dumps(value), 'jsonb')}, FALSE)"
            case "in":
                choices = [json.dumps(item) for item in value]
                return f"COALESCE({document} = ANY(CAST({self.bind(choices, 'text[]')} AS jsonb[])), FALSE)"
            case "contains":
                member = f"COALESCE({document} @> {self.bind(json.dumps([value]), 'jsonb')}, FALSE)"
                return f"CASE jsonb_typeof({document}) WHEN 'array' THEN {member} {self.if_text(document, operator, value)}"
            case "starts_with" | "ends_with":
                return f"CASE jsonb_typeof({document}) {self.if_text(document, operator, value)}"
            case "greater" | "less" | "at_least" | "at_most":
                number = f"CAST({document} #>> '{{}}' AS numeric)"
                test = f"{number} {_COMPARISONS[operator]} {self.bind(str(value), 'numeric')}"
                return f"CASE jsonb_typeof({document}) WHEN 'number' THEN {test} ELSE FALSE END"
        return f"COALESCE({self.moment_test(operator, value, self.json_moment(document))}, FALSE)"

    def if_text(self, document: str, operator: str, value: str) -> str:
        test = self.text_test(operator, value, f"({document} #>> '{{}}')")
        return f"WHEN 'string' THEN {test} ELSE FALSE END"

    def json_moment(self, document: str) -> str:
        """The moment a JSON string means, NULL when it means none; never an error, whatever the string."""
        text = f"({document} #>> '{{}}')"
        date, date_time = self.bind(DATE, "text"), self.bind(DATE_TIME, "text")
        ends = self.bind(EARLIEST, "timestamptz"), self.bind(LATEST, "timestamptz")  # as models.domain.segment_values.parse_moment
        return (
            f"CASE WHEN COALESCE(jsonb_typeof({document}), '') <> 'string' THEN NULL"
            f" WHEN {text} ~ {date} AND pg_input_is_valid({text}, 'date') THEN CAST({text} AS date)::timestamp AT TIME ZONE 'UTC'"
            f" WHEN {text} ~ {date_time} AND pg_input_is_valid({text}, 'timestamptz')"
            f" THEN greatest({ends[0]}, least({ends[1]}, CAST({text} AS timestamptz))) END"
        )

    def text_test(self, operator: str, value: str, text: str) -> str:
        wanted = f"lower({self.bind(value, 'text')})"
        match operator:
            case "contains":
                return f"strpos(lower({text}), {wanted}) > 0"
            case "starts_with":
                return f"starts_with(lower({text}), {wanted})"
            case _:
                return f"right(lower({text}), length({wanted})) = {wanted}"

    def moment_test(self, operator: str, value: Any, moment: str) -> str:
        if operator in _COMPARISONS:
            return f"{moment} {_COMPARISONS[operator]} {self.bind(resolve_moment(value, self.now), 'timestamptz')}"
        ends = (shift(self.now, value, -1), self.now) if operator == "within_last" else (self.now, shift(self.now, value, 1))
        return f"({moment}) BETWEEN {self.bind(ends[0], 'timestamptz')} AND {self.bind(ends[1], 'timestamptz')}"


def _fold(name: str, value: str) -> str:
    if name == "country":
        return value.upper()
    return value.lower() if name in _FOLDED else value
