"""python-liquid made safe for templates written by customers and values written by strangers.

The library limits loops, captures and output. It does not limit ranges, filter results or time: `(1..10000000) | join` took
1 GB under all its limits. So ranges are clamped, filters are checked before and after, and every node and filter spends from one budget per
rendering. A value that is missing fails where it would be printed, with its path. Measured on python-liquid 2.3.6, 2026-11-23.
"""

import re
from collections.abc import Callable, Mapping, Sequence, Sized
from datetime import UTC, datetime
from functools import update_wrapper
from typing import Any, TextIO, cast

from liquid import Environment, Node, RenderContext
from liquid.builtin.expressions import logical
from liquid.builtin.expressions.primitive import Blank, Empty, RangeLiteral
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.echo_tag import EchoTag
from liquid.exceptions import LiquidSyntaxError, LiquidTypeError, ResourceLimitError, UndefinedError
from liquid.stringify import to_liquid_string
from liquid.template import BoundTemplate
from liquid.token import Token
from liquid.undefined import UNDEFINED, FalsyStrictUndefined, is_undefined

SOURCE_LIMIT = 200_000  # characters of one part of a template
RESULT_LIMIT = 100_000  # characters or items that one filter may make
RANGE_LIMIT = 1_000
NUMBER_LIMIT = 10**30
BUDGET = 50_000  # nodes and filters per rendering, each about 3 µs; a filter also spends 1 per 1,000 characters

PIECE_LIMIT = 10_000  # characters between {{ and }}, or {% and %}
RAW_LIMIT = 50  # raw and doc blocks in one part

REMOVED_TAGS = ("include", "render", "increment", "decrement", "tablerow")
REMOVED_FILTERS = ("safe", "escapejs")  # `safe` would switch escaping off


class Missing(FalsyStrictUndefined):
    """A value that is not there: false in conditions, replaced by `default`, an error wherever it would be printed."""

    __slots__ = ()

    def __init__(self, name: str, *, token: Any = None, obj: object = UNDEFINED, hint: str | None = None) -> None:
        path = f"{name}[…]" if hint == "index out of range" else (hint or name).removesuffix(" is undefined").strip("'")
        super().__init__(name, token=token, obj=obj, hint=path)


class Context(RenderContext):
    """A rendering context with a budget."""

    __slots__ = ("budget",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget: float = BUDGET

    def spend(self, units: float) -> None:
        self.budget -= units
        if self.budget < 0:
            raise ResourceLimitError("the template does too much work", token=None)


class Template(BoundTemplate):
    context_class = Context


class StrictOutputNode(OutputNode):
    """Prints a value, or fails: nothing is ever printed blank for want of a value."""

    __slots__ = ()

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        value = self.expression.evaluate(context)
        if not isinstance(value, str):
            self._check(value)
        return buffer.write(to_liquid_string(value, context.autoescape))

    def _check(self, value: object) -> None:
        if value is None:
            raise UndefinedError(str(self.expression) or "nil", token=self.expression.token)
        if isinstance(value, Mapping) and not is_undefined(value):
            raise LiquidTypeError(f"{self.expression} is a group of values: print one of its fields", token=self.expression.token)
        if isinstance(value, list):
            for item in value:
                self._check(item)
            _limit(sum(len(item) for item in value if isinstance(item, Sized)))


class StrictEchoNode(StrictOutputNode):
    __slots__ = ()


class StrictOutput(Output):
    node_class = StrictOutputNode


class StrictEcho(EchoTag):
    node_class = cast(Any, StrictEchoNode)


class HardenedEnvironment(Environment):
    """Parses and renders hostile templates with hostile values, within bounded time and memory."""

    loop_iteration_limit = 5_000
    local_namespace_limit = 500_000
    output_stream_limit = 1_000_000
    context_depth_limit = 30
    block_nesting_limit = 30
    template_class = Template

    def __init__(self, *, autoescape: bool) -> None:
        super().__init__(undefined=Missing, strict_filters=True, autoescape=autoescape)
        self.add_tag(StrictOutput)
        self.add_tag(StrictEcho)
        for name in REMOVED_TAGS:
            self.tags.pop(name)
        for name in REMOVED_FILTERS:
            self.filters.pop(name)
        self.filters = {name: _guarded(name, function) for name, function in self.filters.items()}


_OPENING = re.compile(r"\{[{%]")
_BLANKS = re.compile(r"\s{200}")
_RAW = re.compile(r"\{%-?\s{0,9}(?:raw|doc)\b")


def check_source(source: str) -> None:
    """Refuses what the library's lexer, which is made of backtracking patterns, would take minutes for. Linear itself.

    Measured: 10,000 characters of `{{` took it 6 s, four times as long for twice as many.

    Raises:
        LiquidSyntaxError: at the place that is wrong.
    """
    if len(source) > SOURCE_LIMIT:
        raise LiquidSyntaxError(f"a part may have {SOURCE_LIMIT} characters at most", token=None)
    if sum(1 for _ in _RAW.finditer(source)) > RAW_LIMIT:
        raise LiquidSyntaxError(f"a part may have {RAW_LIMIT} raw blocks at most", token=None)
    at = 0
    while (found := _OPENING.search(source, at)) is not None:
        closing = "}}" if found[0] == "{{" else "%}"
        end = source.find(closing, found.end(), found.end() + PIECE_LIMIT)
        if end < 0:
            raise LiquidSyntaxError(f"expected '{closing}'", token=Token(found[0], found[0], found.start(), source))
        if _BLANKS.search(source, found.end(), end):
            raise LiquidSyntaxError("too many blanks in a row", token=Token(found[0], found[0], found.start(), source))
        at = end + len(closing)


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with its input and its result checked."""
    takes_context = getattr(function, "with_context", False)
    takes_environment = getattr(function, "with_environment", False)

    def guarded(value: Any, *arguments: Any, context: Context, **keywords: Any) -> Any:
        if name != "default" and is_undefined(value):
            str(value)  # raises, naming the path
        for argument in arguments:
            if is_undefined(argument):
                str(argument)
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
        context.spend(1 + (_size(value) + _size(result)) / 1000)
        return result

    update_wrapper(guarded, function)
    guarded.with_context = True  # type: ignore[attr-defined]
    guarded.with_environment = False  # type: ignore[attr-defined]
    return guarded


def _foresee(name: str, value: Any, arguments: Sequence[Any]) -> None:
    """Refuse what would be too large before it is made: `replace` and `join` multiply two sizes."""
    if name.startswith("replace") and len(arguments) == 2:
        text = value if isinstance(value, str) else str(value)
        _limit(len(text) + text.count(str(arguments[0])) * len(str(arguments[1])))
    elif name == "join" and isinstance(value, (list, tuple, range)):
        separator = len(str(arguments[0])) if arguments else 1
        _limit(sum(_size(item) for item in value) + len(value) * separator)


def _size(value: Any) -> int:
    """How much `value` takes, in characters or items. Raises when one value may not be that large."""
    if isinstance(value, (str, list, tuple, range, dict)):
        return _limit(len(value))
    if isinstance(value, (int, float)) and not -NUMBER_LIMIT < value < NUMBER_LIMIT:
        raise ResourceLimitError("the number is too large", token=None)
    return 1


def _limit(size: int) -> int:
    if size > RESULT_LIMIT:
        raise ResourceLimitError("the value is too large", token=None)
    return size


def _moment(value: Any) -> Any:
    """A date filter's input. "now" and numbers mean UTC, whatever the machine's zone is."""
    if value in ("now", "today"):
        return datetime.now(UTC)
    if isinstance(value, str) and len(value) > 100:
        raise LiquidTypeError("date: the text is too long for a date", token=None)
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        return datetime.fromtimestamp(int(value), UTC)
    return value


_equal = logical._eq
_make_range = RangeLiteral._make_range
_render_node = Node.render


def _clamped_range(self: RangeLiteral, start: Any, stop: Any) -> range:
    made = _make_range(self, start, stop)
    # `len` of a range beyond the machine's word raises OverflowError, so compare the ends.
    if made.stop - made.start > RANGE_LIMIT:
        raise ResourceLimitError("the range is too large", token=self.token)
    return made


def _metered_render(self: Node, context: RenderContext, buffer: TextIO) -> int:
    if isinstance(context, Context):
        context.spend(1)
    return _render_node(self, context, buffer)


def _equal_or_blank(left: object, right: object) -> bool:
    """A missing value is blank and empty: `{% if contact.first_name != blank %}` is how most people write that test."""
    if isinstance(right, (Blank, Empty)) and (left is None or is_undefined(left)):
        return True
    return _equal(left, right)


# The library offers no hook for these three. They act on every environment of this process; nothing else here uses Liquid.
logical._eq = _equal_or_blank
RangeLiteral._make_range = _clamped_range  # type: ignore[method-assign]
Node.render = _metered_render  # type: ignore[method-assign]
