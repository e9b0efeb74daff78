from models.domain.journey.operations import MOST_VARIABLES, VARIABLES_BYTES
from models.domain.journey.variables import TOO_LARGE, within_bounds


def test_values_are_taken_in_their_order_while_there_is_room() -> None:
    large = "x" * (VARIABLES_BYTES // 2)
    assert within_bounds({}, {"a": large, "b": large, "c": 1}) == ({"a": large, "c": 1}, {"b": TOO_LARGE})


def test_what_is_beyond_the_bounds_takes_what_does_not_make_it_larger() -> None:
    many = {f"v{number}": 1 for number in range(MOST_VARIABLES + 50)}
    assert within_bounds(many, {"v7": 2, "new": 1}) == ({"v7": 2}, {"new": TOO_LARGE})
    large = {"a": "x" * VARIABLES_BYTES, "b": "old"}
    assert within_bounds(large, {"b": "new", "a": "y"}) == ({"b": "new", "a": "y"}, {})
    assert within_bounds(large, {"b": "longer"}) == ({}, {"b": TOO_LARGE})
