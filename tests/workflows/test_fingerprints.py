"""An edit of replayed code is never made in passing."""

import ast
import re

from deploy.environment import ROOT
from tests.histories import fingerprint

LEDGER = (ROOT / "docs/decisions/changing-workflows.md").read_text()
RITUAL = "Read docs/decisions/changing-workflows.md, then run: python -m tests.histories.fingerprint --why '…' [--patch ID]"


def test_what_is_replayed_has_not_changed_unnoticed() -> None:
    assert fingerprint.differing(fingerprint.read()) == [], RITUAL


def test_every_change_says_why() -> None:
    for change in fingerprint.read()["changes"]:
        assert len(change["why"].split()) >= 4 and change["functions"] and re.fullmatch(r"\d{4}-\d\d-\d\d", change["date"])


def test_the_ledger_names_exactly_the_patches_of_the_code() -> None:
    listed = set(re.findall(r"^\| `([^`]+)` \|", LEDGER, re.MULTILINE))
    assert listed == fingerprint.patches()
    assert {change["patch"] for change in fingerprint.read()["changes"]} - {None} >= fingerprint.patches()


def test_comments_and_docstrings_do_not_count_but_code_does() -> None:
    one = 'def f(a):\n    """Says."""\n    return a  # so\n'
    same = "def f(a):\n    return a\n"
    other = "def f(a):\n    return a + 1\n"
    prints = []
    for source in (one, same, other):
        [(_, function)] = fingerprint._functions(ast.parse(source), "x")
        prints.append(ast.dump(fingerprint._without_docstring(function)))
    assert prints[0] == prints[1] != prints[2]
