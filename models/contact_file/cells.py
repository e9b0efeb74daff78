"""Cells into values, a whole column at a time: imports spend their time here, so each column has its own short way."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.addresses import normalize_email, normalize_phone, normalize_timezone
from models.domain.contact import (
    MAX_LENGTHS,
    Malformed,
    normalize_country,
    normalize_locale,
    normalize_tags,
    normalize_text,
    read_attribute,
)

Value = str | None | Malformed  # text in the form COPY reads; None leaves the contact's value as it is
Cleaner = Callable[[Sequence[str]], list[Value]]
_MEMO_SIZE = 20_000
_GUARDED = re.compile(r"'+[=+\-@\t\r]")  # as contact_export writes what a spreadsheet would take for a formula


class _Memo(dict[str, Value]):
    """Remembers what cells mean: columns such as country hold few values, many times."""

    def __init__(self, clean: Callable[[str], str | None]) -> None:
        self._clean = clean

    def __missing__(self, cell: str) -> Value:
        text = trim(cell)
        value: Value
        try:
            value = self._clean(text) if text else None
        except Malformed as error:
            value = error
        if len(self) < _MEMO_SIZE:
            self[cell] = value
        return value

    def column(self, cells: Sequence[str]) -> list[Value]:
        return list(map(self.__getitem__, cells))


def trim(cell: str) -> str:
    """Without spaces around it, and without the quote that keeps spreadsheets from running it."""
    text = cell.strip()
    return text[1:] if text[:1] == "'" and _GUARDED.match(text) else text


def cleaner(field: str, schema: Mapping[str, Any]) -> Cleaner:
    """How a column of this field is read. `phone` is not among them: it needs the country beside it."""
    if field.startswith("attributes."):
        key = field.removeprefix("attributes.")
        return _Memo(_attribute_reader(key, schema[key]["type"])).column
    match field:
        case "email":
            return lambda cells: [_try(normalize_email, cell) for cell in cells]
        case "country":
            return _Memo(normalize_country).column
        case "locale":
            return _Memo(normalize_locale).column
        case "timezone":
            return _Memo(normalize_timezone).column
        case "tags":
            return _Memo(_tags).column
    return lambda cells: _texts(field, cells)


def phones(cells: Sequence[str], countries: Sequence[Value], default: str | None) -> list[Value]:
    """A column of phone numbers, each read in the country beside it."""
    return [_phone(cell, country, default) if cell else None for cell, country in zip(cells, countries, strict=True)]


def _phone(cell: str, country: Value, default: str | None) -> Value:
    text = trim(cell)
    try:
        return normalize_phone(text, country if isinstance(country, str) else default) if text else None
    except Malformed as error:
        return error


def _try(clean: Callable[[str], str], cell: str) -> Value:
    text = trim(cell)
    if not text:
        return None
    try:
        return clean(text)
    except Malformed as error:
        return error


def _texts(field: str, cells: Sequence[str]) -> list[Value]:
    limit = MAX_LENGTHS[field]
    trimmed = [trim(cell) for cell in cells]
    if max(map(len, trimmed)) <= limit and "\0" not in "".join(trimmed):
        return [text or None for text in trimmed]
    return [_try(lambda text: normalize_text(field, text) or "", cell) for cell in cells]


def _tags(cell: str) -> str | None:
    """A PostgreSQL array literal."""
    found = normalize_tags(re.split(r"[;|]", cell))
    quoted = ('"' + tag.replace("\\", "\\\\").replace('"', '\\"') + '"' for tag in found)
    return "{" + ",".join(quoted) + "}" if found else None


def _attribute_reader(key: str, kind: Any) -> Callable[[str], str]:
    """Reads a cell into one member of a JSON object."""
    name = json.dumps(key)
    return lambda cell: f"{name}: {json.dumps(read_attribute(cell, kind))}"
