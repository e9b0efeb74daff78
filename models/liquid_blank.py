"""Values from outside that say nothing. They know what the template calls them, so that printing one can fail by name."""

from typing import Any


class BlankText(str):
    """A text with nothing in it, or made from nothing."""

    path: str


class BlankList(list[Any]):
    """A list with nothing in it, or made from nothing."""

    path: str


def is_blank(value: object) -> bool:
    """Whether printing it would show nothing."""
    return not value or value.isspace() if isinstance(value, str) else isinstance(value, list) and not value


def named_blank(value: object, path: str) -> object:
    """A blank value that knows it is called `path`; any other value as it is."""
    if not is_blank(value) or path_of(value) is not None:
        return value
    named = BlankText() if isinstance(value, str) else BlankList()
    named.path = path
    return named


def blank_like(source: object, made: object) -> object:
    """What a filter made from `source`: if both are blank, it is missing for the same reason."""
    path = path_of(source)
    return made if path is None else named_blank(made, path)


def path_of(value: object) -> str | None:
    return value.path if isinstance(value, (BlankText, BlankList)) else None
