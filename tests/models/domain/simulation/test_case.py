"""How what happens is compared with what was expected."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from models.domain.journey.definition import Definition
from models.domain.simulation.case import Case, expected_of
from models.domain.simulation.comparison import differences
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


def test_a_difference_reads_as_a_sentence() -> None:
    case = Case.model_validate({"name": "x", "start": START, "expected": {"path": [PATH[0], {"kind": "held", "step": "mail"}, *PATH[2:]]}})
    [one] = differences(case, Definition.model_validate({"start": "mail", "steps": STEPS}), trip(STEPS))
    assert one.message == "Expected held at mail, got sent at mail." and (one.expected, one.got) == ("held at mail", "sent at mail")


def test_a_case_expects_something() -> None:
    with pytest.raises(ValidationError, match="Expect a path, messages or an end"):
        Case.model_validate({"name": "x", "start": START, "expected": {}})
