"""Every code that the product can give as a reason is told in words. Codes are read off the source, so a new one cannot be forgotten."""

import ast
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from activities.contracts.sending import SendOutcome
from activities.providers import smtp_reply
from activities.providers.smtp_reply import Phase, Reply
from deploy.environment import ROOT
from models.domain.decision import Reason
from models.domain.journey.happening import Happening, Names
from models.domain.journey.interpreter import PAUSES
from models.domain.journey.reasons import is_known, reason_words
from models.store.deliveries import pause_in

SOURCES = (
    *(ROOT / "activities").rglob("*.py"),
    *(ROOT / "workflows").rglob("*.py"),
    *(ROOT / "models" / "domain" / "journey").rglob("*.py"),
    *(ROOT / "models" / "store" / name for name in ("fence.py", "deliveries.py")),
)
# Which argument of a call is a reason; a keyword `reason` always is.
POSITIONS = {
    **dict.fromkeys(("Unsendable", "MalformedMail", "BadRecipient", "UnsubscribeMissing", "Leave", "Refused"), 0),
    **dict.fromkeys(("ProviderAnswer", "Verdict", "Way", "halt", "park", "cancel", "leave"), 1),
    **dict.fromkeys(("released", "mark_broken", "_finish"), 2),
    **dict.fromkeys(("settled", "_answered"), 3),
}
GIVING = {("fence", "_held"): 0}  # functions that return a reason, and where in the tuple that they return
FILLING = "299"  # for what a code is made with: a server's reply, the name of a field
REPLIES = (400, 421, 450, 452, 499, 500, 502, 503, 530, 535, 550, 551, 552, 553, 554, 599)
STANDING = ("attempt_lost", "exit_step")  # written in SQL, and the reason of an exit step that gives none
PROMISED = (  # given by what is being built
    *("starts_later", "no_date", "date_passed", "journey_ended", "loop_limit", "version_replaced", "entered_before", "under_way"),
    *("cooling_down", "maximum_reached", "exit_rule:left_trial", "goal:bought", "workflow_cancelled", "answer_299"),
)


def codes_in(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    constants = dict(constants_in(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for given in reasons_of(node):
                yield from texts(given, constants)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (path.stem, node.name) in GIVING:
            place = GIVING[path.stem, node.name]
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    whole = inner.value
                    yield from texts(whole.elts[place] if isinstance(whole, ast.Tuple) else whole, constants)


def constants_in(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                yield target.id, node.value


def reasons_of(call: ast.Call) -> Iterator[ast.expr]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""
    yield from call.args[POSITIONS[name] : POSITIONS[name] + 1] if name in POSITIONS else ()
    yield from (keyword.value for keyword in call.keywords if keyword.arg == "reason")


def texts(given: ast.expr, constants: Mapping[str, ast.expr]) -> Iterator[str]:
    """The texts that an expression may be: those of `x or "y"` and `"x" if … else "y"` too. What is filled in becomes `FILLING`."""
    match given:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Name(id=name) if name in constants:
            yield from texts(constants[name], constants)
        case ast.JoinedStr(values=[ast.Constant(value=str(text)), *_]):
            yield f"{text}{FILLING}"
        case ast.BoolOp(values=several):
            for one in several:
                yield from texts(one, constants)
        case ast.IfExp(body=body, orelse=other):
            yield from texts(body, constants)
            yield from texts(other, constants)


def codes() -> set[str]:
    enhanced = [None, *smtp_reply._RECIPIENT, *smtp_reply._CONTENT, "5.7.1"]
    replies = product(get_args(Phase), REPLIES, enhanced)
    running = {"organization_status": "active", "cancelled": None, "campaign_paused": None, "journey_paused": None}
    pauses = [pause_in({**running, name: "set"}) for name in running]
    return {
        *(code for path in SOURCES for code in codes_in(path)),
        *(answer.reason or "" for phase, code, more in replies if (answer := smtp_reply.meaning(phase, Reply(code, more)))),
        *(pause or "" for pause in pauses),
        *(str(outcome) for outcome in SendOutcome if outcome is not SendOutcome.ACCEPTED),
        *(*map(str, Reason), *PAUSES, *STANDING, *PROMISED),
    }


CODES = sorted(codes())


def test_codes_are_found_where_they_are_given() -> None:
    assert {"tls_refused", "no_connection", "contact_changed", "rate_limited", "gave_up:299", "header_line_break", "malformed"} <= set(
        CODES
    )
    assert len(CODES) > 80


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_words(code: str) -> None:
    words = reason_words(Happening("not_sent", Names(), reason=code)) or ""
    name, _, rest = code.partition(":")
    spelled_out = name.replace("_", " ")
    assert is_known(code) or words not in (spelled_out, f"{spelled_out} ({rest})")
    assert "_" not in words.replace(rest, "")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("address_not_allowed", "the connection's host leads into a private network, which the installation does not allow"),
        ("address_needs_smtputf8", "the address has letters outside ASCII before its @, and no connection can write to such addresses yet"),
        ("exit_rule:left_trial", "the journey's exit rule left_trial applied"),
        ("goal:bought", "the goal bought was reached"),
        ("starts_later", "the campaign starts then"),
        ("provider_raised:ValueError", "our own part of the provider failed (ValueError)"),
        ("answer_299", "it may or may not have been sent: the mail server answered 299; it is never sent again by itself"),
    ],
)
def test_words(code: str, words: str) -> None:
    assert reason_words(Happening("not_sent", Names(), reason=code)) == words
