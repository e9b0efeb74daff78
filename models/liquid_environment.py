"""python-liquid made safe for templates written by customers and values written by strangers.

The library limits loops, captures and output. It does not limit ranges, filter results or time: `(1..10000000) | join` took
1 GB under all its limits. So ranges are clamped, filters are checked before and after, and every node, value and filter spends
what it costs (`models.liquid_cost`) from one budget per rendering. A value that is missing or blank fails where it would be
printed, with its path. Measured on python-liquid 2.3.6, 2026-11-25.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, Final, TextIO, cast

from liquid import Environment, Expression, Node, RenderContext
from liquid.ast import ConditionalBlockNode
from liquid.builtin.expressions import FilteredExpression, Path, logical
from liquid.builtin.expressions.logical import ContainsExpression
from liquid.builtin.expressions.loop import LoopExpression
from liquid.builtin.expressions.primitive import Blank, Empty, RangeLiteral
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags import case_tag
from liquid.builtin.tags.assign_tag import AssignNode, AssignTag
from liquid.builtin.tags.cycle_tag import CycleNode, CycleTag
from liquid.builtin.tags.echo_tag import EchoTag
from liquid.exceptions import LiquidSyntaxError, LiquidTypeError, LocalNamespaceLimitError, ResourceLimitError, UndefinedError
from liquid.stringify import to_liquid_string
from liquid.template import BoundTemplate
from liquid.token import Token
from liquid.undefined import UNDEFINED, FalsyStrictUndefined, is_undefined

from models.liquid_blank import is_blank, named_blank, path_of
from models.liquid_cost import EXPRESSION, NODE, PRINTED, SCOPE, SEGMENT, SKIPPED, search_cost, text_cost, weight
from models.liquid_filters import limit, safe_filters

SOURCE_LIMIT: Final = 200_000  # characters of one part of a template
RANGE_LIMIT: Final = 1_000
BUDGET: Final = 100_000.0  # microseconds, about, for one rendering of one part

PIECE_LIMIT: Final = 10_000  # characters between {{ and }}, or {% and %}
PIECES_LIMIT: Final = 5_000  # pieces in one part: parsing one takes 30 µs,
LOGIC_LIMIT: Final = 50_000  # and a character in them up to 7 µs
RAW_LIMIT: Final = 50  # raw and doc blocks in one part

REMOVED_TAGS: Final = ("include", "render", "increment", "decrement", "tablerow")


class Missing(FalsyStrictUndefined):
    """A value that is not there: false in conditions, replaced by `default`, an error wherever it would be printed."""

    __slots__ = ()

    def __init__(self, name: str, *, token: Any = None, obj: object = UNDEFINED, hint: str | None = None) -> None:
        path = (hint or name).removesuffix(" is undefined").strip("'")
        super().__init__(name, token=token, obj=obj, hint=path)


class Context(RenderContext):
    """A rendering context with a budget."""

    __slots__ = ("budget", "held_bytes")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.budget: float = BUDGET
        self.held_bytes = 0

    def spend(self, cost: float) -> None:
        self.budget -= cost
        if self.budget < 0:
            raise ResourceLimitError("the template does too much work", token=None)

    def assign(self, key: str, val: Any) -> None:
        """The library adds up all names again at each assignment."""
        self.held_bytes += sys.getsizeof(val, 1) - (sys.getsizeof(self.locals[key], 1) if key in self.locals else 0)
        self.locals[key] = val
        if self.held_bytes > HardenedEnvironment.local_namespace_limit:
            raise LocalNamespaceLimitError("local namespace limit reached", token=None)

    def resolve_path(self, path: Path) -> object:
        """The value, charged for; one that is missing or blank knows what the template calls it."""
        value: Any
        try:
            value = self.scope[cast(str, path.path[0])]
        except (KeyError, TypeError):
            return self._missing(path, 1)
        for known, part in enumerate(path.path[1:], 2):
            try:
                value = self.get_item(value, part.evaluate(self) if isinstance(part, Path) else part)
            except (KeyError, TypeError, IndexError):
                return self._missing(path, known)
        self.spend(SCOPE * self.scope.size() + (text_cost(value) if isinstance(value, str) else weight(value, self.budget)))
        return named_blank(value, str(path)) if is_blank(value) and self.is_from_outside(path) else value

    def _missing(self, path: Path, known: int) -> Missing:
        """Named as the template writes it: what stands in brackets may be somebody's address."""
        self.spend(SCOPE * self.scope.size())
        return Missing(str(path.head()), token=path.token, hint=str(Path(path.token, path.path[:known])))

    def is_from_outside(self, path: Path) -> bool:
        """A name that the template itself has given a text is its author's to leave blank."""
        return len(path.path) > 1 or path.head() not in self.locals


class Template(BoundTemplate):
    """A parsed template that knows what each of its nodes costs before any value is known."""

    context_class = Context

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.costs: dict[int, float] = {}  # by the node's id: nodes live as long as their template
        left = list(self.nodes)
        while left:
            node = left.pop()
            children = list(node.children(_NO_CONTEXT))
            inline = [child for child in children if isinstance(child, ConditionalBlockNode)]  # whose conditions their parent asks
            self.costs[id(node)] = NODE + sum(_static_cost(part) for one in (node, *inline) for part in one.expressions())
            left += children


_NO_CONTEXT = cast(RenderContext, None)  # only the tags that load other templates, which are removed, ask it for anything


def _static_cost(expression: Expression) -> float:
    cost, left = 0.0, [expression]
    while left:
        one = left.pop()
        cost += EXPRESSION + (SEGMENT * len(one.path) if isinstance(one, Path) else 0)
        left += one.children()
        if isinstance(one, case_tag._AnyExpression):
            left.append(one.left)
    return cost


def printed(value: object, expression: Expression, context: Context) -> str:
    """The text of a value, or a failure: nothing is ever printed blank for want of a value."""
    if not isinstance(value, str):
        context.spend(weight(value, context.budget))
        _check_printable(value, expression)
    text = to_liquid_string(value, context.autoescape)
    if is_blank(text) and (path := path_of(value) or _outside_path(expression, context)) is not None:
        raise UndefinedError(path, token=expression.token)
    return text


def _check_printable(value: object, expression: Expression) -> None:
    if value is None:
        raise UndefinedError(str(expression) or "nil", token=expression.token)
    if isinstance(value, Mapping) and not is_undefined(value):
        raise LiquidTypeError(f"{expression} is a group of values: print one of its fields", token=expression.token)
    if isinstance(value, list):
        for item in value:
            _check_printable(item, expression)
        limit(sum(len(item) for item in value if isinstance(item, Sized)))


def _outside_path(expression: Expression, context: Context) -> str | None:
    """The field that an expression begins with."""
    field = expression.left if isinstance(expression, FilteredExpression) else expression
    return str(field) if isinstance(field, Path) and context.is_from_outside(field) else None


class StrictOutputNode(OutputNode):
    __slots__ = ()

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        return buffer.write(printed(self.expression.evaluate(context), self.expression, cast(Context, context)))


class StrictEchoNode(StrictOutputNode):
    __slots__ = ()


class StrictOutput(Output):
    node_class = StrictOutputNode


class StrictEcho(EchoTag):
    node_class = cast(Any, StrictEchoNode)


class StrictCycleNode(CycleNode):
    """Looks only at the value whose turn it is. The library tells cycles apart by the text of all their values."""

    __slots__ = ()

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        context = cast(Context, context)
        name = printed(self.group.evaluate(context), self.group, context) if self.group else ", ".join(map(str, self.args))
        turn = self.args[context.cycle(name, len(self.args)) % len(self.args)]
        return buffer.write(printed(turn.evaluate(context), turn, context))


class StrictCycle(CycleTag):
    node_class = StrictCycleNode


class NamingAssignNode(AssignNode):
    """A name given to nothing still says what it is the name of."""

    __slots__ = ()

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        value = self.expression.evaluate(context)
        path = _outside_path(self.expression, cast(Context, context)) if is_blank(value) else None
        context.assign(self.name, value if path is None else named_blank(value, path))
        return 0


class NamingAssign(AssignTag):
    node_class = NamingAssignNode


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
        for tag in (StrictOutput, StrictEcho, StrictCycle, NamingAssign):
            self.add_tag(tag)
        for name in REMOVED_TAGS:
            self.tags.pop(name)
        self.filters = safe_filters(self.filters)


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
    at, pieces, logic = 0, 0, 0
    while (found := _OPENING.search(source, at)) is not None:
        closing = "}}" if found[0] == "{{" else "%}"
        end = source.find(closing, found.end(), found.end() + PIECE_LIMIT)
        if end < 0:
            raise LiquidSyntaxError(f"expected '{closing}'", token=Token(found[0], found[0], found.start(), source))
        if _BLANKS.search(source, found.end(), end):
            raise LiquidSyntaxError("too many blanks in a row", token=Token(found[0], found[0], found.start(), source))
        at = end + len(closing)
        pieces, logic = pieces + 1, logic + end - found.end()
        if pieces > PIECES_LIMIT or logic > LOGIC_LIMIT:
            raise LiquidSyntaxError("there is too much Liquid in this part", token=Token(found[0], found[0], found.start(), source))


_equal = logical._eq
_make_range = RangeLiteral._make_range
_render_node = Node.render
_resolve_path = Path.evaluate
_contains = ContainsExpression.evaluate
_slice = LoopExpression._slice


def _clamped_range(self: RangeLiteral, start: Any, stop: Any) -> range:
    made = _make_range(self, start, stop)
    # `len` of a range beyond the machine's word raises OverflowError, so compare the ends.
    if made.stop - made.start > RANGE_LIMIT:
        raise ResourceLimitError("the range is too large", token=self.token)
    return made


def _metered_render(self: Node, context: RenderContext, buffer: TextIO) -> int:
    if not isinstance(context, Context):
        return _render_node(self, context, buffer)
    context.spend(cast(Template, context.template).costs.get(id(self), NODE))
    written = _render_node(self, context, buffer)
    if written:
        context.spend(written * PRINTED)
    return written


def _named_path(self: Path, context: RenderContext) -> object:
    return context.resolve_path(self) if isinstance(context, Context) else _resolve_path(self, context)


def _metered_contains(self: ContainsExpression, context: RenderContext) -> object:
    """The text or list itself is charged for where it is resolved; searching a text can take much longer."""
    left, right = self.left.evaluate(context), self.right.evaluate(context)
    if isinstance(context, Context) and isinstance(left, str) and not is_undefined(right):
        if isinstance(right, (Mapping, Sequence)) and not isinstance(right, str):
            raise LiquidTypeError("contains: a text cannot contain a group of values", token=self.token)
        context.spend(search_cost(len(left), len(str(right))))
    return logical._contains(self.token, left, right)


def _metered_slice(self: LoopExpression, it: Iterator[object], length: int, context: RenderContext, **ends: Any) -> Any:
    if isinstance(context, Context):
        context.spend(length * SKIPPED)
    return _slice(self, it, length, context, **ends)


def _equal_or_blank(left: object, right: object) -> bool:
    """A missing value is blank and empty: `{% if contact.first_name != blank %}` is how most people write that test."""
    if isinstance(right, (Blank, Empty)) and (left is None or is_undefined(left)):
        return True
    return _equal(left, right)


# The library offers no hook for these. They act on every environment of this process; nothing else here uses Liquid.
logical._eq = _equal_or_blank
case_tag._eq = _equal_or_blank  # type: ignore[attr-defined]
RangeLiteral._make_range = _clamped_range  # type: ignore[method-assign]
Node.render = _metered_render  # type: ignore[method-assign]
Path.evaluate = _named_path  # type: ignore[method-assign]
ContainsExpression.evaluate = _metered_contains  # type: ignore[method-assign]
LoopExpression._slice = _metered_slice  # type: ignore[method-assign]
