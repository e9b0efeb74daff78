from typing import Any

import pytest

from models.domain.contact import (
    COUNTRIES,
    Malformed,
    check_attribute_schema,
    normalize_attribute,
    normalize_locale,
    normalize_tags,
    read_attribute,
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("EN", "en"), ("en_us", "en-US"), ("zh-hant-tw", "zh-Hant-TW"), ("es-419", "es-419"), ("sl-rozaj-biske", "sl-rozaj-biske"),
        ("de-CH-1996", "de-CH-1996"), ("en-x-Pirate", "en-x-pirate"),
    ],
)  # fmt: skip
def test_locales_get_their_conventional_case(given: str, kept: str) -> None:
    assert normalize_locale(given) == kept


@pytest.mark.parametrize("given", ["e", "english-US", "en--US", "en-US-", "en US", "12", "", "en-" + "a" * 40])
def test_what_is_no_locale(given: str) -> None:
    with pytest.raises(Malformed):
        normalize_locale(given)


def test_tags_are_folded_sorted_and_kept_once() -> None:
    assert normalize_tags([" VIP", "vip", "Big  Spender", ""]) == ["big spender", "vip"]


@pytest.mark.parametrize("tags", [["a;b"], ["a|b"], ["a\x00"], ["x" * 65], [str(number) for number in range(101)]])
def test_tags_that_files_could_not_carry_are_refused(tags: list[str]) -> None:
    with pytest.raises(Malformed):
        normalize_tags(tags)


@pytest.mark.parametrize(
    ("value", "kind", "kept"),
    [
        (3.0, "integer", 3),
        (3, "number", 3),
        ("2026-05-01T09:00:00+02:00", "datetime", "2026-05-01T07:00:00Z"),
        (["b", "a"], "strings", ["b", "a"]),
        (False, "boolean", False),
    ],
)
def test_attributes_take_values_of_their_type(value: Any, kind: Any, kept: Any) -> None:
    found = normalize_attribute(value, kind)
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, "string"), (True, "number"), (True, "integer"), (1.5, "integer"), (10**18, "integer"), (float("nan"), "number"), (0, "boolean"),
        ("2026-13-01", "date"), ("20260101", "date"), ("2026-01-01T00:00:00", "datetime"), ("a", "strings"), ([1], "strings"),
        ({}, "string"),
        ("\x00", "string"), ("\ud800", "string"), ("x" * 4_001, "string"), (["x"] * 201, "strings"),
    ],
)  # fmt: skip
def test_attributes_refuse_other_values(value: Any, kind: Any) -> None:
    with pytest.raises(Malformed):
        normalize_attribute(value, kind)


@pytest.mark.parametrize(
    ("cell", "kind", "kept"),
    [
        ("007", "integer", 7),
        ("1e3", "number", 1000.0),
        (".5", "number", 0.5),
        ("12", "number", 12),
        ("Yes", "boolean", True),
        ("0", "boolean", False),
        ("a; b|c", "strings", ["a", "b", "c"]),
        ('["a;b", "c"]', "strings", ["a;b", "c"]),
        ("007", "string", "007"),
    ],
)
def test_cells_are_read_as_their_attribute(cell: str, kind: Any, kept: Any) -> None:
    assert read_attribute(cell, kind) == kept


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("1,5", "number"), ("1e999", "number"), ("nan", "number"), ("1.0", "integer"), ("maybe", "boolean"), ("[1", "strings"),
        ("[1]", "strings"), ("31.01.2026", "date"),
    ],
)  # fmt: skip
def test_cells_that_do_not_fit_are_refused(cell: str, kind: Any) -> None:
    with pytest.raises(Malformed):
        read_attribute(cell, kind)


def test_an_attribute_schema_is_checked_key_by_key() -> None:
    schema = {"plan": {"type": "string"}, "2x": {"type": "string"}, "y": {"type": "text"}, "z": "string"}
    assert [(one.path, one.code) for one in check_attribute_schema(schema)] == [
        ("attribute_schema.2x", "bad_key"),
        ("attribute_schema.y", "bad_type"),
        ("attribute_schema.z", "bad_type"),
    ]


def test_the_countries_are_those_of_iso_3166() -> None:
    assert len(COUNTRIES) == 250
    assert all(len(code) == 2 and code.isupper() for code in COUNTRIES)
