"""The rule language that selects contacts: what a rule may say, and whether it makes sense. Pure.

    {"all": [{"field": "country", "is": "in", "value": ["US", "CA"]},
             {"not": {"tag": "staff"}},
             {"consent": {"topic": "news", "channel": "email", "status": "granted"}},
             {"field": "attributes.trial_ends", "is": "before", "value": {"ahead": "P7D"}}]}

In a journey a rule may also read the run (`run.<variable>`) and, where there is one, the event (`event.<property>`), compare with
the run ({"run": "order_id"} as a value), ask what has happened, and name a segment:

    {"event": {"name": "purchase", "within": "P30D", "at_least": 2, "where": {"field": "event.total", "is": "greater", "value": 10}}}
    {"segment": "0190a1b2-0000-7000-8000-000000000001"}

A rule is true or false for a contact, never unknown: a missing value makes every positive test false and therefore
its negation true. `models.store.segment_sql` compiles a rule; docs/segments.md describes it to its users.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from models.domain.contact import normalize_tag
from models.domain.errors import Invalid, Problem
from models.domain.phrases import plain_message
from models.domain.segment_values import TYPES_OF, ValueType, check_value

MAX_DEPTH = 10
MAX_NODES = 200

TEXT_FIELDS = ("external_id", "email", "phone", "first_name", "last_name", "locale", "timezone", "country", "region", "postal_code")
MOMENT_FIELDS = ("created_at", "updated_at")

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Operator = Literal[
    "equals", "not_equals", "in", "not_in", "contains", "not_contains", "starts_with", "ends_with", "exists", "missing",
    "greater", "less", "at_least", "at_most", "before", "after", "within_last", "not_within_last", "within_next",
]  # fmt: skip
# Operators that are true exactly where another is false.
NEGATIONS = {"not_equals": "equals", "not_in": "in", "not_contains": "contains", "not_within_last": "within_last", "missing": "exists"}


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Every(Model):
    """All of these hold. An empty list holds for every contact."""

    all: tuple["Rule", ...] = Field(max_length=MAX_NODES)


class Either(Model):
    """At least one of these holds."""

    any: tuple["Rule", ...] = Field(min_length=1, max_length=MAX_NODES)


class Negation(Model):
    """This does not hold."""

    rule: "Rule" = Field(alias="not")


class FieldRule(Model):
    """A test on one field: a contact's own, `attributes.<key>` or, in a journey's branch, `run.<variable>`."""

    field: Text
    operator: Operator = Field(alias="is")
    value: Any = None


class TagRule(Model):
    tag: Text

    @model_validator(mode="after")
    def _normalized(self) -> "TagRule":
        object.__setattr__(self, "tag", normalize_tag(self.tag))
        return self


class ConsentQuestion(Model):
    """The topic by id or by key. `none`: nothing was ever said about it."""

    topic_id: UUID | None = None
    topic: Text | None = None
    channel: Literal["email", "sms"]
    status: Literal["granted", "withdrawn", "none"]

    @model_validator(mode="after")
    def _one_topic(self) -> "ConsentQuestion":
        if (self.topic_id is None) == (self.topic is None):
            raise ValueError("Name the topic by exactly one of topic_id and topic.")
        return self


class ConsentRule(Model):
    consent: ConsentQuestion


class EventQuestion(Model):
    """Has it happened to this contact `at_least` times, lately (`within`) or since the run began (`since` "entry")?"""

    name: Text
    at_least: Annotated[StrictInt, Field(ge=1, le=1_000)] = 1
    within: str | None = None  # ISO 8601, by the time that the event says
    since: Literal["entry"] | None = None  # by the time of acceptance
    where: "Rule | None" = None

    @model_validator(mode="after")
    def _duration(self) -> "EventQuestion":
        if self.within is not None and (problem := check_value("within_last", self.within, "datetime")):
            raise ValueError(problem[1])
        return self


class EventRule(Model):
    event: EventQuestion


class SegmentRule(Model):
    """Whoever fits that segment. Publishing a journey puts the segment's rule in its place."""

    segment: UUID


NO_SEGMENTS = ("no_segments", "Only a journey's rule can name a segment; repeat its rule here.")
KEYS = ("all", "any", "not", "field", "tag", "consent", "event", "segment")


def _shape(raw: Any) -> str | None:
    if isinstance(raw, Mapping):
        return next((f"<{key}>" for key in KEYS if key in raw), None)
    return None


Rule = Annotated[
    Annotated[Every, Tag("<all>")]
    | Annotated[Either, Tag("<any>")]
    | Annotated[Negation, Tag("<not>")]
    | Annotated[FieldRule, Tag("<field>")]
    | Annotated[TagRule, Tag("<tag>")]
    | Annotated[ConsentRule, Tag("<consent>")]
    | Annotated[EventRule, Tag("<event>")]
    | Annotated[SegmentRule, Tag("<segment>")],
    Discriminator(
        _shape,
        custom_error_type="rule_shape",
        custom_error_message='A rule is an object with one of "all", "any", "not", "field", "tag", "consent", "event", "segment".',
    ),
]
AnyRule = Every | Either | Negation | FieldRule | TagRule | ConsentRule | EventRule | SegmentRule
_RULE: TypeAdapter[AnyRule] = TypeAdapter(Rule)


@dataclass(frozen=True)
class Vocabulary:
    """What rules may speak about: the organization's attribute schema, whether there is a run, an event, and whether segments may
    be named.

    With `attributes` None the custom attributes are not checked, only their values.
    """

    attributes: Mapping[str, Any] | None = None
    run: bool = False
    event: bool = False
    segments: bool = False


def parse_rule(raw: Any, vocabulary: Vocabulary | None = None, path: str = "rule") -> AnyRule:
    """The rule that `raw` (decoded JSON) says.

    Raises:
        Invalid: it is malformed, too deep (10 levels) or too large (200 parts), or does not fit the vocabulary;
            one problem per mistake, each with the path of the part, from `path` on.
    """
    _check_size(raw, path)
    try:
        rule = _RULE.validate_python(raw)
    except ValidationError as error:
        raise Invalid([_problem(path, line) for line in error.errors(include_url=False, include_input=False)]) from None
    problems = [*_check_parts(rule, path, vocabulary or Vocabulary(run=True, event=True))]
    if problems:
        raise Invalid(problems)
    return rule


def walk(rule: AnyRule, path: str = "rule") -> Iterator[tuple[str, AnyRule]]:
    """Every part of the rule with its path, outermost first."""
    yield path, rule
    match rule:
        case Every(all=parts):
            for index, part in enumerate(parts):
                yield from walk(part, f"{path}.all[{index}]")
        case Either(any=parts):
            for index, part in enumerate(parts):
                yield from walk(part, f"{path}.any[{index}]")
        case Negation(rule=part):
            yield from walk(part, f"{path}.not")
        case EventRule(event=question) if question.where is not None:
            yield from walk(question.where, f"{path}.event.where")


def inline_segments(rule: Mapping[str, Any], segments: Mapping[UUID, Mapping[str, Any]]) -> dict[str, Any]:
    """The (well-formed) rule with `segment` replaced by that segment's own rule.

    Raises:
        KeyError: a segment that is not among `segments`.
    """
    if "segment" in rule:
        return dict(segments[UUID(str(rule["segment"]))])
    found = dict(rule)
    for key in ("all", "any"):
        if key in found:
            found[key] = [inline_segments(part, segments) for part in found[key]]
    if "not" in found:
        found["not"] = inline_segments(found["not"], segments)
    if "event" in found and found["event"].get("where"):
        found["event"] = {**found["event"], "where": inline_segments(found["event"]["where"], segments)}
    return found


def _check_size(raw: Any, path: str) -> None:
    """Before anything recurses: a hostile document may be deeper than the interpreter's stack."""
    layer, depth, nodes = [raw], 0, 0
    while layer:
        depth, nodes = depth + 1, nodes + len(layer)
        if depth > MAX_DEPTH:
            raise Invalid.field(path, "too_deep", f"A rule may be nested {MAX_DEPTH} levels deep.")
        if nodes > MAX_NODES:
            raise Invalid.field(path, "too_large", f"A rule may have {MAX_NODES} parts.")
        layer = [child for part in layer if isinstance(part, Mapping) for child in _children(part)]


def _children(part: Mapping[Any, Any]) -> list[Any]:
    found = [part["not"]] if "not" in part else []
    for key in ("all", "any"):
        if isinstance(part.get(key), list):
            found.extend(part[key])
    if isinstance(part.get("event"), Mapping) and "where" in part["event"]:
        found.append(part["event"]["where"])
    return found


def _problem(path: str, line: Any) -> Problem:
    steps = [step for step in line["loc"] if not str(step).startswith("<")]
    where = path + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    message = plain_message(line)
    return Problem(where, line["type"], message)


def _check_parts(rule: AnyRule, path: str, vocabulary: Vocabulary) -> Iterator[Problem]:
    """Of each part; inside an event's `where` there is an event to read."""
    inside: tuple[str, ...] = ()
    for where, part in walk(rule, path):
        here = vocabulary if not where.startswith(inside) or not inside else replace(vocabulary, event=True)
        match part:
            case FieldRule():
                yield from _check_field(where, part, here)
            case EventRule(event=question):
                inside = (*inside, f"{where}.event.where")
                if question.since is not None and not vocabulary.run:
                    yield Problem(f"{where}.event.since", "no_run", "Only a journey's rule can count since the run's entry.")
            case SegmentRule() if not vocabulary.segments:
                yield Problem(f"{where}.segment", *NO_SEGMENTS)


def _check_field(path: str, part: FieldRule, vocabulary: Vocabulary) -> list[Problem]:
    try:
        field_type = type_of_field(part.field, vocabulary)
    except KeyError as error:
        return [Problem(f"{path}.field", "unknown_field", error.args[0])]
    allowed = TYPES_OF[part.operator]
    if field_type is not None and field_type not in allowed:
        fitting = ", ".join(operator for operator, types in TYPES_OF.items() if field_type in types)
        return [Problem(f"{path}.is", "wrong_operator", f"{part.field} is a {field_type}; use one of {fitting}.")]
    if (variable := run_reference(part.value)) is not None:
        if not vocabulary.run:
            return [Problem(f"{path}.value", "no_run", "Only a journey's rule can compare with the run.")]
        if part.operator not in ("equals", "not_equals") or not part.field.startswith(("event.", "attributes.", "run.")) or not variable:
            message = "A run's variable can be compared by equals and not_equals with event, attributes and run fields."
            return [Problem(f"{path}.value", "wrong_operator", message)]
        return []
    problem = check_value(part.operator, part.value, field_type)
    return [] if problem is None else [Problem(f"{path}.value", *problem)]


def type_of_field(field: str, vocabulary: Vocabulary) -> ValueType | None:
    """The type of a field's values; None when it is only known at run time.

    Raises:
        KeyError: there is no such field; its argument is the message.
    """
    if field in TEXT_FIELDS:
        return "string"
    if field in MOMENT_FIELDS:
        return "datetime"
    namespace, _, key = field.partition(".")
    if namespace == "attributes" and key:
        return _type_of_attribute(key, vocabulary.attributes)
    if namespace == "run" and key and vocabulary.run:
        return None
    if namespace == "event" and key and vocabulary.event:
        return None
    if namespace == "event":
        raise KeyError("Only where there is an event can a rule read event.<property>.")
    if namespace == "run":
        raise KeyError("Only a journey's branch can read run.<variable>; a segment has no run.")
    raise KeyError(f"There is no field of this name; use one of {', '.join((*TEXT_FIELDS, *MOMENT_FIELDS))} or attributes.<key>.")


def run_reference(value: Any) -> str | None:
    """The run's variable that a value names ({"run": "order_id"}), or None."""
    if isinstance(value, Mapping) and set(value) == {"run"} and isinstance(value["run"], str):
        return value["run"]
    return None


def _type_of_attribute(key: str, schema: Mapping[str, Any] | None) -> ValueType | None:
    if schema is None:
        return None
    if key not in schema:
        raise KeyError(f"The organization has no attribute of this name; it has {', '.join(sorted(schema)) or 'none yet'}.")
    found: ValueType = schema[key]["type"]
    return found
