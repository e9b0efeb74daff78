"""How what happens is compared with what was expected."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from models.domain.journey.definition import Definition
from models.domain.simulation.case import Case, expected_of
from models.domain.simulation.comparison import differences
from models.domain.simulation.possible import impossible
from tests.models.domain.simulation.builders import SEND, START, trip

STEPS: dict[str, Any] = {"mail": {**SEND, "next": "wait"}, "wait": {"kind": "wait", "duration": "P3D", "next": "more"}, "more": SEND}
PATH = [{"kind": "entered"}, {"kind": "sent"}, {"kind": "waiting"}, {"kind": "woke"}, {"kind": "sent"}, {"kind": "completed"}]


def found(expected: dict[str, Any], **given: Any) -> list[tuple[str, str]]:
    case = Case.model_validate({"name": "x", "start": START, "expected": expected, **given})
    definition = Definition.model_validate({"start": "mail", "steps": STEPS})
    return [(one.where, one.code) for one in differences(case, definition, trip(STEPS))]


def test_what_a_trip_came_to_is_what_is_expected_of_it() -> None:
    expected = expected_of(trip(STEPS)).model_dump(mode="json", exclude_unset=True)
    assert found(expected) == [] and len(expected["messages"]) == 2


@pytest.mark.parametrize(
    ("expected", "different"),
    [
        ({"path": PATH}, []),
        ({"path": PATH[:-1]}, [("path[5]", "unexpected")]),
        ({"path": [*PATH[:3], *PATH[4:]]}, [("path[3]", "unexpected")]),
        ({"path": [*PATH[:2], {"kind": "held"}, *PATH[2:]]}, [("path[2]", "missing")]),
        ({"path": [PATH[0], {"kind": "not_sent", "reason": "no_consent"}, *PATH[2:]]}, [("path[1]", "different")]),
        ({"path": [PATH[0], {"kind": "sent", "step": "more"}, *PATH[2:]]}, [("path[1].step", "different")]),
        ({"path": [*PATH[:2], {"kind": "waiting", "until": START.isoformat()}, *PATH[3:]]}, [("path[2].until", "different")]),
        ({"path": [*PATH[:5], {"kind": "completed", "reason": None}]}, []),
        ({"path": [*PATH[:5], {"kind": "completed", "at": (START + timedelta(days=3)).isoformat()}]}, []),
        ({"messages": [{"step": "mail"}, {"step": "more", "subject": "Hello Ann"}]}, []),
        ({"messages": [{"step": "mail"}, {"step": "more", "subject": "Hello Bob"}]}, [("messages[1].subject", "different")]),
        ({"messages": [{"step": "mail"}]}, [("messages[1]", "unexpected")]),
        ({"messages": []}, [("messages[0]", "unexpected"), ("messages[0]", "unexpected")]),
        ({"end": {"phase": "completed"}}, []),
        ({"end": {"phase": "exited", "reason": "bye"}}, [("end.phase", "different"), ("end.reason", "different")]),
        (
            {"messages": [{"step": "mail"}, {"step": "gone"}, {"step": "more"}]},
            [("messages[1]", "unknown_step"), ("messages[1]", "missing")],
        ),
    ],
)
def test_only_what_is_said_counts_and_each_difference_is_told_once(expected: dict[str, Any], different: list[tuple[str, str]]) -> None:
    assert found(expected) == different


ENTERED, SENT, OVER = {"kind": "entered"}, {"kind": "sent", "step": "mail"}, {"kind": "completed"}
LATE = "2028-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("expected", "path"),
    [
        ({"path": [ENTERED, {"kind": "sended", "step": "mail"}]}, "path[1].kind"),
        ({"path": [SENT]}, "path[0].kind"),
        ({"path": [ENTERED, ENTERED]}, "path[1].kind"),
        ({"path": [ENTERED, OVER, SENT]}, "path[2]"),
        ({"path": [ENTERED, {"kind": "sent", "reason": "no_consent"}]}, "path[1].reason"),
        ({"path": [ENTERED, {"kind": "not_sent", "reason": None}]}, "path[1].reason"),
        ({"path": [ENTERED, {"kind": "retried"}]}, "path[1].kind"),
        ({"path": [ENTERED, {"kind": "review_approved"}]}, "path[1].kind"),
        ({"path": [ENTERED, {"kind": "sent", "at": "2026-03-02T08:59:59Z"}]}, "path[1].at"),
        ({"path": [ENTERED, {"kind": "sent", "at": LATE}]}, "path[1].at"),
        ({"path": [ENTERED, {"kind": "sent", "at": "2026-03-09T09:00:00Z"}, {"kind": "woke", "at": "2026-03-03T09:00:00Z"}]}, "path[2].at"),
        ({"messages": [{"step": "mail"}, {"step": "mail", "at": LATE}]}, "messages[1].at"),
        ({"end": {"phase": "finished"}}, "end.phase"),
        ({"end": {"phase": "paused"}}, "end.phase"),
        ({"end": {"phase": "cancelled"}}, "end.phase"),
        ({"end": {"phase": "completed", "reason": "no_consent"}}, "end.reason"),
        ({"end": {"phase": "exited", "reason": None}}, "end.reason"),
        ({"path": [ENTERED, OVER], "end": {"phase": "exited"}}, "end.phase"),
        ({"path": [ENTERED, SENT], "end": {"phase": "completed"}}, "end.phase"),
        ({"path": [ENTERED, {"kind": "exited", "reason": "a"}], "end": {"phase": "exited", "reason": "b"}}, "end.reason"),
        ({"path": [ENTERED], "end": {"phase": "not_entered"}}, "end.phase"),
        ({"path": [], "end": {"phase": "completed"}}, "end.phase"),
        ({"messages": [{"step": "mail"}], "end": {"phase": "not_entered"}}, "messages"),
    ],
)
def test_what_no_journey_can_do_is_named_with_its_path(expected: dict[str, Any], path: str) -> None:
    case = Case.model_validate({"name": "x", "start": START, "expected": expected})
    assert [problem.path for problem in impossible(case)] == [path]
    assert path in [where for where, _ in found(expected)]


@pytest.mark.parametrize("kind, said", [("retried", {"control": "retry"}), ("cancelled", {"control": "cancel"})])
def test_what_somebody_must_say_can_be_expected_when_the_script_says_it(kind: str, said: dict[str, Any]) -> None:
    case = {"name": "x", "start": START, "script": [said], "expected": {"path": [ENTERED, {"kind": kind}]}}
    assert [*impossible(Case.model_validate(case))] == []


@pytest.mark.parametrize(
    ("expected", "different"),
    [
        ({"path": [ENTERED, {"kind": "sent", "step": "wait"}]}, ("path[1]", "wrong_kind")),
        ({"path": [ENTERED, {"kind": "waiting", "step": "mail"}]}, ("path[1]", "wrong_kind")),
        ({"path": [ENTERED, {"kind": "waiting", "step": "pause"}]}, ("path[1]", "unknown_step")),
        ({"messages": [{"step": "wait"}]}, ("messages[0]", "sends_nothing")),
        ({"end": {"phase": "exited", "reason": "exit_rule:bought"}}, ("end.reason", "unknown_rule")),
        ({"path": [ENTERED, {"kind": "exited", "reason": "goal:bought"}]}, ("path[1].reason", "unknown_rule")),
    ],
)
def test_what_this_version_cannot_do_is_told_before_how_it_differs(expected: dict[str, Any], different: tuple[str, str]) -> None:
    assert found(expected)[0] == different


def test_a_step_that_is_gone_is_named() -> None:
    case = Case.model_validate({"name": "x", "start": START, "expected": {"messages": [{"step": "pause"}]}})
    first = differences(case, Definition.model_validate({"start": "mail", "steps": STEPS}), trip(STEPS))[0]
    assert first.message == "The step 'pause' does not exist in this version of the journey; change the case."


def test_a_difference_reads_as_a_sentence() -> None:
    case = Case.model_validate({"name": "x", "start": START, "expected": {"path": [PATH[0], {"kind": "held", "step": "mail"}, *PATH[2:]]}})
    [one] = differences(case, Definition.model_validate({"start": "mail", "steps": STEPS}), trip(STEPS))
    assert one.message == "Expected held at mail, got sent at mail." and (one.expected, one.got) == ("held at mail", "sent at mail")


def test_a_case_expects_something() -> None:
    with pytest.raises(ValidationError, match="Expect a path, messages or an end"):
        Case.model_validate({"name": "x", "start": START, "expected": {}})
