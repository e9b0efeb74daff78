"""`update_contact`: sets attributes, adds and removes tags. Pure."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from models.domain.contact import Malformed, normalize_attribute, normalize_tags
from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.steps.base import Name
from models.domain.journey.steps.effect import EffectStep, printed_nowhere
from models.domain.segment import run_reference

MAX_CHANGES = 50
_INSTEAD = 'To take the run\'s value, or that of the event which brought it in, say {"run": "plan"}.'
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class Refused(Exception):
    """This run's change cannot be made, and nothing of it is. `reason` is a code, with the name of what is wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UpdateContactStep(EffectStep):
    """`attributes`: by key; null takes the attribute away, {"run": "order_id"} takes the run's value. A text is taken as it stands, also
    one that looks like a template in a version from before such were refused."""

    done: ClassVar[str] = "contact_updated"

    kind: Literal["update_contact"] = "update_contact"
    attributes: dict[Name, Any] = Field(default_factory=dict)
    add_tags: tuple[Tag, ...] = ()
    remove_tags: tuple[Tag, ...] = ()

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        changes = len(self.attributes) + len(self.add_tags) + len(self.remove_tags)
        if not 1 <= changes <= MAX_CHANGES:
            yield Problem(path, "wrong_number", f"Change 1 to {MAX_CHANGES} attributes and tags.")
        for key, value in self.attributes.items():
            yield from _attribute(f"{path}.attributes.{key}", key, value, facts)
        for field, tags in (("add_tags", self.add_tags), ("remove_tags", self.remove_tags)):
            for index, tag in enumerate(tags):
                yield from _tag(f"{path}.{field}[{index}]", tag)

    def new_attributes(self, variables: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes to be set, in the form that is stored, by key; None: to be taken away. `variables` are the run's, `schema`
        the organization's now.

        Raises:
            Refused: wrong_type:<key>, too_long:<key>, not_storable:<key>, unknown_attribute:<key> (no longer in the schema), or
                no_variable:<name>: the run has none.
        """
        found: dict[str, Any] = {}
        for key, said in self.attributes.items():
            if key not in schema:
                raise Refused(f"unknown_attribute:{key}")
            try:
                value = _value(said, variables)
                found[key] = None if value is None else normalize_attribute(value, schema[key]["type"])
            except Malformed as error:
                raise Refused(f"{error.code}:{key}") from None
        return found

    def new_tags(self, tags: list[str]) -> list[str]:
        """What becomes of a contact's tags. Raises Refused: too_many_tags, or a tag that cannot be one."""
        removed = {*normalize_tags(self.remove_tags)}
        try:
            return normalize_tags([*(tag for tag in tags if tag not in removed), *self.add_tags])
        except Malformed as error:
            raise Refused(error.code) from None


def _value(said: Any, variables: Mapping[str, Any]) -> Any:
    name = run_reference(said)
    if name is None:
        return said
    if variables.get(name) is None:
        raise Refused(f"no_variable:{name}")
    return variables[name]


def _tag(path: str, tag: str) -> Iterator[Problem]:
    yield from printed_nowhere(path, tag, 'Keep it in an attribute, which takes the run\'s value by {"run": "order_id"}.')
    try:
        if not normalize_tags([tag]):
            yield Problem(path, "empty", "A tag has at least one character.")
    except Malformed as error:
        yield Problem(path, error.code, error.message)


def _attribute(path: str, key: str, value: Any, facts: Facts) -> Iterator[Problem]:
    if isinstance(value, str) and (templates := list(printed_nowhere(path, value, _INSTEAD))):
        yield from templates
        return
    if facts.attributes is None:
        return
    if key not in facts.attributes:
        known = ", ".join(sorted(facts.attributes)) or "none yet"
        yield Problem(path, "unknown_attribute", f"The organization has no attribute of this name; it has {known}.")
    elif value is not None and run_reference(value) is None:
        try:
            normalize_attribute(value, facts.attributes[key]["type"])
        except Malformed as error:
            yield Problem(path, error.code, error.message)
