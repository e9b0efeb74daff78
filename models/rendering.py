"""Templates to messages: parsing (cached), analysis and rendering. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final

from liquid.exceptions import LiquidError, UndefinedError, UnknownFilterError
from liquid.static_analysis import TemplateAnalysis
from liquid.template import BoundTemplate

from models.domain.errors import Problem
from models.liquid_environment import HardenedEnvironment, check_source

_HTML: Final = HardenedEnvironment(autoescape=True)
_PLAIN: Final = HardenedEnvironment(autoescape=False)

CONTACT_FIELDS: Final = (
    "email",
    "first_name",
    "last_name",
    "locale",
    "timezone",
    "country",
    "region",
    "postal_code",
    "phone",
    "external_id",
)
MAX_PROBLEMS: Final = 50  # of one part: finding the line of each reads all before it
_CONTACT_PATHS: Final = frozenset(CONTACT_FIELDS) | {"tags", "attributes"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message ready to be built. An SMS has only `text`."""

    subject: str
    html: str
    text: str


class RenderingFailed(Exception):
    """This message cannot be rendered. `part` is subject, html or text; `reason` holds no personal data."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason


class MissingValue(RenderingFailed):
    """The template prints a value that this contact or run does not have. `path` names it, as in contact.first_name."""

    def __init__(self, path: str, part: str = "text") -> None:
        super().__init__(part, f"{path} has no value")
        self.path = path


def render_email(subject: str, html: str, text: str, context: Mapping[str, Any]) -> Rendered:
    """The mail for this context. Values are escaped in HTML and taken as they are in subject and text.

    White space in the subject, line breaks included, becomes single spaces.

    Raises:
        MissingValue: a printed value is missing; names its path.
        RenderingFailed: anything else: the template is broken, does too much, or makes too much.
    """
    return Rendered(
        subject=" ".join(_render("subject", subject, context, _PLAIN).split()),
        html=_render("html", html, context, _HTML) if html else "",
        text=_render("text", text, context, _PLAIN) if text else "",
    )


def render_text(text: str, context: Mapping[str, Any]) -> Rendered:
    """A message that is only text (SMS). Raises like `render_email`."""
    return Rendered(subject="", html="", text=_render("text", text, context, _PLAIN))


def _render(part: str, source: str, context: Mapping[str, Any], environment: HardenedEnvironment) -> str:
    try:
        return _parse(source, environment is _HTML).render(context)
    except UndefinedError as error:
        raise MissingValue(str(error.message), part) from None
    except LiquidError as error:
        raise RenderingFailed(part, str(error.message)) from None
    except Exception as error:  # arithmetic and date filters let plain errors through
        raise RenderingFailed(part, type(error).__name__) from None


@lru_cache(maxsize=1024)
def _parse(source: str, html: bool) -> BoundTemplate:
    check_source(source)
    return (_HTML if html else _PLAIN).from_string(source)


def contact_context(contact: Mapping[str, Any]) -> dict[str, Any]:
    """What a template sees as `contact`, from a row of contacts. Empty values are left out, so that printing them fails."""
    values: dict[str, Any] = {name: contact[name] for name in CONTACT_FIELDS if not _is_nothing(contact.get(name))}
    values["tags"] = list(contact.get("tags") or ())
    values["attributes"] = _without_empty(contact.get("attributes") or {})
    return values


def message_context(
    contact: Mapping[str, Any], run: Mapping[str, Any], organization_name: str, unsubscribe_url: str | None
) -> dict[str, Any]:
    """All that a template may read: `contact` a row of contacts, `run` the run's variables."""
    context: dict[str, Any] = {
        "contact": contact_context(contact),
        "run": _without_empty(run),
        "organization": {"name": organization_name},
    }
    if unsubscribe_url is not None:
        context["unsubscribe_url"] = unsubscribe_url
    return context


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _emptied(value) for name, value in values.items() if not _is_nothing(value)}


def _emptied(value: Any) -> Any:
    match value:
        case Mapping():
            return _without_empty(value)
        case list():
            return [_emptied(item) for item in value]  # the list keeps its length: its items are counted, and found by number
    return value


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a template source uses: `variables` are the outside paths it reads, sorted; `problems` keep it from being saved."""

    variables: tuple[str, ...]
    problems: tuple[Problem, ...]


def analyze(source: str, part: str = "text") -> Analysis:
    """What `source` reads, and every reason to refuse it, with line and column. `part` is subject, html or text."""
    try:
        template = _parse(source, part == "html")
        found = template.analyze(include_partials=False)
    except LiquidError as error:
        return Analysis((), (_problem(part, error),))
    except RecursionError:
        return Analysis((), (Problem(part, "syntax", "line 1, column 1: brackets are nested too deeply."),))
    problems = chain(_unknown_filters(part, source, template, found), _unknown_variables(part, source, found))
    variables = sorted({str(variable) for uses in found.globals.values() for variable in uses})
    return Analysis(tuple(variables), tuple(islice(problems, MAX_PROBLEMS)))


def _unknown_filters(part: str, source: str, template: BoundTemplate, found: TemplateAnalysis) -> Iterator[Problem]:
    for name, spans in found.filters.items():
        if name not in template.env.filters:
            for span in spans:
                yield Problem(part, "unknown_filter", f"{_position(source, span.index)}: there is no filter {name}.")


def _unknown_variables(part: str, source: str, found: TemplateAnalysis) -> Iterator[Problem]:
    for uses in found.globals.values():
        for variable in uses:
            for complaint in _complaints(variable.segments):
                yield Problem(part, "unknown_variable", f"{_position(source, variable.span.index)}: {complaint}")


def _complaints(segments: Sequence[Any]) -> Iterator[str]:
    match segments:
        case ["contact"] | ["run", *_] | ["organization", "name"] | ["unsubscribe_url"]:
            return
        case ["contact", list(), *_]:
            return
        case ["contact", field, *_] if field in _CONTACT_PATHS:
            return
        case ["contact", field, *_]:
            yield f"contacts have no field {field}. Custom ones are under contact.attributes."
        case [root, *_]:
            yield f"{root} is unknown. Use contact, run, organization.name or unsubscribe_url."


def _problem(part: str, error: LiquidError) -> Problem:
    code = "unknown_filter" if isinstance(error, UnknownFilterError) else "syntax"
    token = error.token
    where = _position(token.source, token.start_index) if token is not None and token.start_index >= 0 else "line 1, column 1"
    return Problem(part, code, f"{where}: {error.message}.")


def _position(source: str, index: int) -> str:
    before = source[:index]
    return f"line {before.count(chr(10)) + 1}, column {index - (before.rfind(chr(10)) + 1) + 1}"
