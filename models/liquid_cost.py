"""What rendering costs, in microseconds of one core of 2026. Counted, never measured: every machine refuses the same templates.

The rates are the worst that was found for each filter (python-liquid 2.3.6 on CPython 3.11.7, 2026-11-25), so a usual template
costs less than it is charged. A filter without a rate does not exist for templates.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from liquid.exceptions import ResourceLimitError

NODE: Final = 1.5
EXPRESSION: Final = 0.5
SEGMENT: Final = 1.0  # of a path
SCOPE: Final = 0.2  # for each scope that a name is looked for in
FILTER: Final = 2.0
ITEM: Final = 0.3  # of a list or an object, however deep
CHARACTER: Final = 0.001  # of text that is copied or compared
PRINTED: Final = 0.01  # a character that is escaped and written
SKIPPED: Final = 0.02  # an item that a loop passes over

NUMBER_LIMIT: Final = 10**30
NEEDLE_LIMIT: Final = 500  # beyond, searching gets no slower

# Filters that read one text: what a character of it costs.
TEXTS: Final[Mapping[str, float]] = {
    **dict.fromkeys(("append", "lstrip", "prepend", "rstrip", "strip", "truncate"), 0.002),
    **dict.fromkeys(("capitalize", "downcase", "escape", "upcase"), 0.02),
    **dict.fromkeys(("base64_decode", "base64_encode", "base64_url_safe_decode", "base64_url_safe_encode"), 0.02),
    **dict.fromkeys(("remove", "remove_first", "remove_last", "replace", "replace_first", "replace_last", "split"), 0.05),
    **dict.fromkeys(("newline_to_br", "squish", "strip_newlines", "url_decode"), 0.1),
    **dict.fromkeys(("escape_once", "strip_html", "truncatewords", "url_encode"), 0.35),
}
# Those of them that search the text for their first argument, which they compare with every place of it at worst.
SEARCHES: Final = frozenset({"remove", "remove_first", "remove_last", "replace", "replace_first", "replace_last", "split"})
BACKWARDS: Final = frozenset({"remove_last", "replace_last"})  # CPython searches these by trying every place
# Filters that read a list: how often they go through all of it, compared with counting it.
LISTS: Final[Mapping[str, float]] = {
    **dict.fromkeys(("compact", "concat", "reverse"), 1.5),
    **dict.fromkeys(("find", "find_index", "has", "map", "reject", "where"), 2.0),
    **dict.fromkeys(("sort", "sort_natural"), 2.0),
    **dict.fromkeys(("join", "sum", "uniq"), 8.0),
}
SORTS: Final = frozenset({"sort", "sort_natural"})
# Filters that look at no more than a few characters or items.
PLAIN: Final[Mapping[str, float]] = {
    **dict.fromkeys(("abs", "at_least", "at_most", "ceil", "divided_by", "floor", "minus", "modulo", "plus", "round", "times"), 3.0),
    **dict.fromkeys(("default", "first", "last", "size"), 0.0),
    "slice": 0.0,
    "date": 200.0,
}
KNOWN_FILTERS: Final = TEXTS.keys() | LISTS.keys() | PLAIN.keys()


def filter_cost(name: str, value: Any, arguments: Sequence[Any], most: float) -> float:
    """What a filter costs for this value. Counts no further than `most`."""
    cost = FILTER + sum(weight(argument, most) for argument in arguments)
    if name in TEXTS:
        length = len(value) if isinstance(value, str) else 0
        needle = len(arguments[0]) if arguments and isinstance(arguments[0], str) else 0
        return cost + length * TEXTS[name] + (search_cost(length, needle, name in BACKWARDS) if name in SEARCHES else 0)
    if name in LISTS:
        counted = weight(value, most)
        return cost + counted * LISTS[name] * (1 + (math.log2(1 + counted / ITEM) if name in SORTS else 0))
    return cost + PLAIN[name] + (len(value) * CHARACTER if name == "slice" and isinstance(value, (str, list, tuple)) else 0)


def search_cost(length: int, needle: int, backwards: bool = False) -> float:
    """Looking for `needle` characters in a text of `length`."""
    return length * (0.003 + 0.0003 * (needle if backwards else min(needle, NEEDLE_LIMIT)))


def weight(value: Any, most: float) -> float:
    """What going through all of `value` costs; what stands in it twice counts twice. Counts no further than `most`.

    Raises:
        ResourceLimitError: it holds a number that is too large to be reckoned with.
    """
    cost = 0.0
    left = [value]
    while left and cost <= most:
        one = left.pop()
        if isinstance(one, str):
            cost += text_cost(one)
        elif isinstance(one, (list, tuple)):
            cost += ITEM + _enter(left, one)
        elif isinstance(one, dict):
            cost += ITEM + _enter(left, one.values()) + len(one) * ITEM
        elif isinstance(one, range):
            cost += ITEM + len(one) * ITEM
        else:
            cost += ITEM
            if isinstance(one, (int, float)):
                check_number(one)
    return cost


def text_cost(value: str) -> float:
    return ITEM + len(value) * CHARACTER


def _enter(left: list[Any], items: Iterable[Any]) -> float:
    """The items are to be counted, too; what listing them costs."""
    before = len(left)
    left.extend(items)
    return (len(left) - before) * SKIPPED


def check_number(value: float) -> None:
    if not -NUMBER_LIMIT < value < NUMBER_LIMIT:
        raise ResourceLimitError("the number is too large", token=None)
