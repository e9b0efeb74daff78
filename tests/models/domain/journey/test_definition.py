import pytest

from models.domain.errors import NotFound
from models.domain.journey.definition import Definition, ExitStep, WaitStep
from models.domain.journey.steps.base import StepModel


def test_a_step_is_found_by_its_id_and_kind() -> None:
    definition = Definition(start="end", steps={"end": ExitStep()})
    assert definition.step("end", ExitStep) is definition.step("end", StepModel) is definition.steps["end"]
    for step_id, kind in (("end", WaitStep), ("start", ExitStep)):
        with pytest.raises(NotFound, match=step_id):
            definition.step(step_id, kind)
