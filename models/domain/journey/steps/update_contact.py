"""`update_contact`: sets attributes, adds and removes tags. Pure."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from models.domain.contact import normalize_tag
from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.steps.base import Name
from models.domain.journey.steps.effect import EffectStep
from models.domain.segment import run_reference
from models.domain.segment_values import is_number

MAX_CHANGES = 50
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class UpdateContactStep(EffectStep):
    """`attributes`: by key; null takes the attribute away, {"run": "order_id"} takes the run's value."""

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
                if not normalize_tag(tag):
                    yield Problem(f"{path}.{field}[{index}]", "empty", "A tag has at least one character.")


_FITS: dict[str, Any] = {
    "string": lambda value: isinstance(value, str),
    "number": is_number,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "date": lambda value: isinstance(value, str),
    "datetime": lambda value: isinstance(value, str),
    "strings": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
}


def _attribute(path: str, key: str, value: Any, facts: Facts) -> Iterator[Problem]:
    if facts.attributes is None:
        return
    if key not in facts.attributes:
        known = ", ".join(sorted(facts.attributes)) or "none yet"
        yield Problem(path, "unknown_attribute", f"The organization has no attribute of this name; it has {known}.")
    elif value is not None and run_reference(value) is None and not _FITS[facts.attributes[key]["type"]](value):
        yield Problem(path, "wrong_type", f"{key} is a {facts.attributes[key]['type']}.")
