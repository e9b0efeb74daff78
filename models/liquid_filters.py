"""Filters as templates may use them: checked before and after, charged for what they do, slow ones replaced."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import update_wrapper
from typing import Any, Final, Protocol

from liquid import Environment, Markup
from liquid.exceptions import FilterArgumentError, LiquidTypeError, ResourceLimitError, UndefinedError
from liquid.filter import sequence_filter, string_filter, with_environment
from liquid.undefined import is_undefined

from models.liquid_blank import blank_like
from models.liquid_cost import KNOWN_FILTERS, LISTS, TEXTS, check_number, filter_cost

RESULT_LIMIT: Final = 100_000  # characters or items that one filter may take or make
DATE_LIMIT: Final = 100  # characters of a date
FORMAT_LIMIT: Final = 200  # characters of its format: the C library takes up to 256 times as much for each
KEY_LIMIT: Final = 100  # characters of a property's name

REMOVED: Final = ("safe", "escapejs")  # `safe` would switch escaping off


class Budget(Protocol):
    """The part of a rendering context that a filter needs."""

    budget: float
    env: Environment

    def spend(self, cost: float) -> None: ...


Filter = Callable[..., Any]


def safe_filters(offered: Mapping[str, Filter]) -> dict[str, Filter]:
    """The filters of the library that templates may use, made safe."""
    known = {name: _REPLACED.get(name, function) for name, function in offered.items() if name in KNOWN_FILTERS and name not in REMOVED}
    return {name: _guarded(name, function) for name, function in known.items()}


def _guarded(name: str, function: Filter) -> Filter:
    """`function` with its input checked, its cost spent before it runs, and its result checked."""
    takes_context = getattr(function, "with_context", False)
    takes_environment = getattr(function, "with_environment", False)

    def guarded(value: Any, *arguments: Any, context: Budget, **keywords: Any) -> Any:
        given = (*arguments, *keywords.values())
        _check_present(name, value, given)
        _check_kinds(name, value, given)
        size_of(value)
        context.spend(filter_cost(name, value, given, context.budget))
        _foresee(name, value, arguments)
        if name == "date":
            value = _moment(value)
        if takes_context:
            keywords["context"] = context
        if takes_environment:
            keywords["environment"] = context.env
        result = function(value, *arguments, **keywords)
        if name == "map" and any(item == None for item in result):  # noqa: E711 (the library's own null equals None)
            raise UndefinedError(f"{arguments[0]} of one of the items", token=None)
        size_of(result)
        return blank_like(value, result)

    update_wrapper(guarded, function)
    guarded.with_context = True  # type: ignore[attr-defined]
    guarded.with_environment = False  # type: ignore[attr-defined]
    return guarded


def _check_present(name: str, value: Any, arguments: Sequence[Any]) -> None:
    for one in arguments if name == "default" else (value, *arguments):
        if is_undefined(one):
            str(one)  # raises, naming the path


def _check_kinds(name: str, value: Any, arguments: Sequence[Any]) -> None:
    """What would be printed in Python's own notation, after long work if it is large, is refused."""
    if name in TEXTS and _is_group(value):
        raise LiquidTypeError(f"{name}: this is not one text; print one of its fields, or join it first", token=None)
    if name == "join" and any(isinstance(item, Mapping) for item in (value if isinstance(value, (list, tuple)) else (value,))):
        raise LiquidTypeError("join: the items are groups of values; use map first", token=None)
    if name in (*TEXTS, "join", "date", "slice") and any(map(_is_group, arguments)):
        raise LiquidTypeError(f"{name}: its arguments are single values", token=None)
    if name in LISTS and name not in ("concat", "join") and arguments and (_is_group(arguments[0]) or len(str(arguments[0])) > KEY_LIMIT):
        raise LiquidTypeError(f"{name}: give the name of a field", token=None)
    if name == "date" and arguments and len(str(arguments[0])) > FORMAT_LIMIT:
        raise LiquidTypeError("date: the format is too long", token=None)


def _is_group(value: Any) -> bool:
    return isinstance(value, (list, tuple, range, Mapping)) and not is_undefined(value)


def _foresee(name: str, value: Any, arguments: Sequence[Any]) -> None:
    """Refuse what would be too large before it is made: `replace` and `join` multiply two sizes."""
    if name.startswith("replace") and len(arguments) == 2:
        text = value if isinstance(value, str) else str(value)
        limit(len(text) + text.count(str(arguments[0])) * len(str(arguments[1])))
    elif name == "join" and isinstance(value, (list, tuple, range)):
        separator = len(str(arguments[0])) if arguments else 1
        limit(sum(size_of(item) for item in value) + len(value) * separator)


def size_of(value: Any) -> int:
    """How much `value` takes, in characters or items. Raises when one value may not be that large."""
    if isinstance(value, (str, list, tuple, range, dict)):
        return limit(len(value))
    if isinstance(value, (int, float)):
        check_number(value)
    return 1


def limit(size: int) -> int:
    if size > RESULT_LIMIT:
        raise ResourceLimitError("the value is too large", token=None)
    return size


def _moment(value: Any) -> Any:
    """A date filter's input. "now" and numbers mean UTC, whatever the machine's zone is."""
    if value in ("now", "today"):
        return datetime.now(UTC)
    if isinstance(value, str) and len(value) > DATE_LIMIT:
        raise LiquidTypeError("date: the text is too long for a date", token=None)
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        return datetime.fromtimestamp(int(value), UTC)
    return value


@sequence_filter
def _uniq(sequence: Sequence[Any], key: object = None) -> list[Any]:
    """The items, each once. The library compares each with all before it: 12,000 items took it 2 s."""
    found: dict[object, Any] = {}
    for item in sequence:
        found.setdefault(_identity(item if key is None else _field(item, key)), item)
    return list(found.values())


def _field(item: Any, key: object) -> object:
    try:
        return item[key]
    except (KeyError, IndexError):
        return None
    except TypeError as error:
        raise FilterArgumentError(f"uniq: an item has no field {key}", token=None) from error


def _identity(value: Any) -> object:
    """Something that can be hashed, and is equal for equal values. Numbers as digits: Python's hashes of them can be made to collide."""
    match value:
        case float() if not value.is_integer():
            return ("number", repr(value))
        case int() | float():
            return ("number", str(int(value)))
        case list() | tuple():
            return ("list", *map(_identity, value))
        case dict():
            return ("fields", frozenset((name, _identity(item)) for name, item in value.items()))
    return value


_HIDDEN = tuple(  # elements whose text is not text, by how they begin and end
    (re.compile(begin, re.IGNORECASE | re.ASCII), re.compile(end, re.IGNORECASE | re.ASCII))
    for begin, end in ((r"<script\b", r"</script\s{0,9}>"), (r"<style\b", r"</style\s{0,9}>"), (r"<!--", r"-->"))
)


@with_environment
@string_filter
def _strip_html(text: str, *, environment: Environment) -> str:
    """The text without tags, comments, scripts and styles. The library parses it as a browser would, 2 µs for each `<`."""
    stripped = without_tags(text)
    return Markup(stripped) if environment.autoescape and isinstance(text, Markup) else stripped


def without_tags(text: str) -> str:
    """Linear: what was not found once is not searched for again."""
    kept: list[str] = []
    endless: set[int] = set()
    at = 0
    while (begin := text.find("<", at)) >= 0 and (end := _end_of_markup(text, begin, endless)) is not None:
        kept.append(str(text[at:begin]))
        at = end
    return "".join((*kept, str(text[at:])))


def _end_of_markup(text: str, begin: int, endless: set[int]) -> int | None:
    for number, (opening, closing) in enumerate(_HIDDEN):
        if number not in endless and opening.match(text, begin):
            if (found := closing.search(text, begin)) is not None:
                return found.end()
            endless.add(number)
    end = text.find(">", begin)
    return None if end < 0 else end + 1


_REPLACED: Final[Mapping[str, Filter]] = {"uniq": _uniq, "strip_html": _strip_html}
