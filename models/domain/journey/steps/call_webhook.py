"""`call_webhook`: tells another system, at least once, and may keep parts of its answer in the run's variables. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from models.domain.contact import Malformed, normalize_attribute
from models.domain.errors import Problem
from models.domain.journey.facts import Facts
from models.domain.journey.run import RunState
from models.domain.journey.steps.base import Answer, Exits, Go, Model, Outcome, StepId, VariableName
from models.domain.journey.steps.effect import EffectStep, printed_nowhere
from models.domain.journey.written import Duration

ValueType = Literal["string", "number", "integer", "boolean"]
MAX_SAVED = 20
FORBIDDEN_HEADERS = frozenset(
    {
        *("webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "content-length", "content-encoding", "accept-encoding"),
        *("host", "cookie", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect"),
    }
)


class Saved(Model):
    """`path`: keys and indexes into the JSON answer, such as "order.items.0.price". A value of another type is not kept."""

    path: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]
    type: ValueType


class CallWebhookStep(EffectStep):
    """POSTs JSON with a `webhook-id` that stays the same however often it is tried. `body`: strings in it are Liquid, printed for
    the contact; left out: ids of contact, run and step. When it fails for good, the run parks, or goes to `failed`."""

    slow: ClassVar[bool] = True
    done: ClassVar[str] = "called_webhook"
    opaque: ClassVar[frozenset[str]] = frozenset({"body", "headers", "save"})

    kind: Literal["call_webhook"] = "call_webhook"
    url: Annotated[str, Field(max_length=2_000)]
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")], Annotated[str, Field(max_length=2_000)]] = Field(
        default_factory=dict, max_length=20
    )
    body: dict[str, Any] | None = None
    save: dict[VariableName, Saved] = Field(default_factory=dict)
    timeout: Duration = timedelta(seconds=10)
    on_failure: Literal["attention", "path"] = "attention"
    failed: StepId | None = None  # with "path": where a run goes whose call failed for good

    def exits(self) -> Exits:
        yield "next", self.next
        if self.on_failure == "path":
            yield "failed", self.failed

    def answered(self, state: RunState, answer: Answer, now: datetime) -> Outcome:
        if answer.refused and self.on_failure == "path":
            return Go(self.failed, "not_done", answer.reason, answer.details)
        return super().answered(state, answer, now)

    def kept(self, document: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """The values to be kept of a JSON answer, by variable, and of the others why not: absent, wrong_type, too_long, …"""
        values: dict[str, Any] = {}
        missed: dict[str, str] = {}
        for name, saved in self.save.items():
            try:
                values[name] = normalize_attribute(_found(document, saved.path), saved.type)
            except LookupError:
                missed[name] = "absent"
            except Malformed as error:
                missed[name] = error.code
        return values, missed

    def liquid(self) -> Iterator[str]:
        yield from _texts(self.body)

    def problems(self, path: str, facts: Facts) -> Iterator[Problem]:
        for source in self.liquid():
            if problem := facts.malformed_liquid.get(source):
                yield Problem(f"{path}.body", "malformed_liquid", problem)
        yield from _url(f"{path}.url", self.url)
        for name, value in self.headers.items():
            if name.lower() in FORBIDDEN_HEADERS:
                yield Problem(f"{path}.headers.{name}", "forbidden", "This header is ours to set.")
            yield from printed_nowhere(f"{path}.headers.{name}", value, "Say it in the body, whose texts are templates.")
            if any(ord(character) < 32 or ord(character) > 126 for character in value):
                yield Problem(f"{path}.headers.{name}", "malformed", "A header's value is printable ASCII.")
        if len(self.save) > MAX_SAVED:
            yield Problem(f"{path}.save", "too_many", f"At most {MAX_SAVED} values are kept.")
        if not timedelta(seconds=1) <= self.timeout <= timedelta(seconds=30):
            yield Problem(f"{path}.timeout", "out_of_range", "A call waits 1 to 30 seconds for its answer.")
        if self.on_failure != "path" and self.failed is not None:
            yield Problem(f"{path}.failed", "unused", 'Only on_failure "path" leads there; say so, or remove it.')


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)


def _found(document: Any, path: str) -> Any:
    """Raises LookupError: there is nothing at this path, or null."""
    for part in path.split("."):
        match document:
            case dict():
                document = document[part]
            case list() if part.isascii() and part.isdigit():
                document = document[int(part)]
            case _:
                raise LookupError(part)
    if document is None:
        raise LookupError(path)
    return document


def _url(path: str, url: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if fine and not url.isascii():
        message = (
            "Write a host's name in ASCII (punycode), such as xn--e1afmkfd.xn--p1ai, and anything else percent-encoded, such as %C3%A9."
        )
        yield Problem(path, "malformed_url", message)
    elif not fine or any(ord(character) <= 32 or ord(character) > 126 for character in url):
        yield Problem(path, "malformed_url", "Give an http or https address without credentials, such as https://example.com/hook.")
