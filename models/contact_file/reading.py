"""A file of contacts as chunks of rows that are ready for COPY, and the rows that are refused.

A chunk is a few thousand rows: nothing here grows with the file. Line numbers are those of an editor: a quoted line break
counts, and a row is named by the line it starts on.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import uuid_utils

from models.contact_file.cells import Cleaner, Value, cleaner, phones
from models.contact_file.columns import Columns
from models.contact_file.form import Form, codec
from models.domain.contact import FIELDS, Malformed
from models.domain.errors import Invalid

CHUNK_ROWS = 4_000
MAX_CELL = csv.field_size_limit()  # characters
MAX_LINE = 1_000_000  # characters; a longer one is no spreadsheet's
STAGED = ("line", "id", *FIELDS, "attributes", "tags", "consent_id", "address_hash")
_TOO_LARGE = "A cell in the row that starts on line {line} is longer than {limit:,} characters."
_NEVER_CLOSED = 'The quote (") opened in the row that starts on line {line} is never closed; nothing after it can be read.'


@dataclass(frozen=True)
class Refusal:
    """A row that is not taken. `column` is the file's header, None when it concerns the whole row."""

    line: int
    column: str | None
    code: str
    message: str


@dataclass(frozen=True)
class Chunk:
    """`staged` is CSV in the order of `STAGED`, NULL as nothing."""

    rows: int
    staged: bytes
    refusals: Sequence[Refusal]


@dataclass(frozen=True)
class ConsentAddress:
    """For imports that grant consent: the field that holds the channel's address, and its hash in suppressions."""

    field: str
    hashed: Callable[[str], bytes]


class Table:
    """The records of a file: the header first, then the rest in batches. Reads on from wherever it stands."""

    def __init__(self, file: BinaryIO, form: Form) -> None:
        file.seek(0)
        self._text = io.TextIOWrapper(file, encoding=codec(form.encoding), newline="")
        self._offset = form.preamble_lines
        self._delimiter = form.delimiter
        self._quotes = 0  # in the record that is being read
        for _ in range(form.preamble_lines):
            self._text.readline(MAX_LINE)
        self._reader = csv.reader(self._lines(), delimiter=form.delimiter, strict=True)

    def _lines(self) -> Iterator[str]:
        number = self._offset
        while line := self._text.readline(MAX_LINE):
            number += 1
            if len(line) == MAX_LINE and line[-1] not in "\r\n":
                raise Invalid.field("file", "line_too_long", f"Line {number} is longer than {MAX_LINE:,} characters.")
            self._quotes += line.count('"')
            yield line

    @property
    def _next_line(self) -> int:
        return self._offset + self._reader.line_num + 1

    def header(self) -> list[str]:
        """The first record that is not blank."""
        for _, rows, refusals in self.batches(1):
            if refusals:
                raise Invalid.field("file", "missing_header", f"The header cannot be read: {refusals[0].message}")
            return rows[0]
        return []

    def batches(self, size: int = CHUNK_ROWS) -> Iterator[tuple[list[int], list[list[str]], list[Refusal]]]:
        """Line numbers, records, and what could not be read, a batch at a time; blank rows are passed over."""
        ended = False
        while not ended:
            lines: list[int] = []
            rows: list[list[str]] = []
            refusals: list[Refusal] = []
            ended = self._fill(lines, rows, refusals, size)
            if rows or refusals:
                yield lines, rows, refusals

    def _fill(self, lines: list[int], rows: list[list[str]], refusals: list[Refusal], size: int) -> bool:
        """Whether the file has ended."""
        line = self._next_line
        while len(rows) < size:
            try:
                for row in self._reader:
                    self._quotes = 0
                    if any(row):
                        lines.append(line)
                        rows.append(row)
                    line = self._next_line
                    if len(rows) >= size:
                        return False
                return True
            except csv.Error as error:
                refusals.append(self._unreadable(line, error))
                self._quotes = 0
                line = self._next_line
        return False

    def _unreadable(self, line: int, error: csv.Error) -> Refusal:
        reason = str(error)
        if "field larger" in reason and self._is_closed():
            raise Invalid.field("file", "cell_too_large", _TOO_LARGE.format(line=line, limit=MAX_CELL)) from None
        if "field larger" in reason or "unexpected end" in reason:
            raise Invalid.field("file", "unclosed_quote", _NEVER_CLOSED.format(line=line)) from None
        return Refusal(line, None, "bad_quotes", 'A quote (") inside a quoted cell must be doubled ("").')

    def _is_closed(self) -> bool:
        """Whether the cell that is too large ends as a cell should: its quote, if any, closed before the next column or row."""
        if self._quotes % 2 == 0:
            return True
        while line := self._text.readline(MAX_LINE):
            start = line.replace('""', "  ").find('"')
            if start >= 0:
                return line[start + 1 : start + 2] in ("", "\r", "\n", self._delimiter)
        return False

    def close(self) -> None:
        """Leaves the file itself open."""
        self._text.detach()


class ContactReader:
    """Turns batches of records into chunks."""

    def __init__(
        self, columns: Columns, width: int, schema: Mapping[str, Any], default_country: str | None, consent: ConsentAddress | None
    ) -> None:
        self._width = width
        self._columns = columns.used
        self._cleaners: dict[str, Cleaner] = {column.field: cleaner(column.field, schema) for column in columns.used}
        self._default_country = default_country
        self._consent = consent

    def read(self, lines: list[int], rows: list[list[str]], refusals: list[Refusal]) -> Chunk:
        """One batch. Never raises for what a row holds."""
        total = len(rows) + len(refusals)
        lines, rows = self._fit(lines, rows, refusals)
        if not rows:
            return Chunk(total, b"", refusals)
        values = self._clean(list(zip(*rows, strict=True)))
        refused = self._refuse(lines, values, refusals)
        return Chunk(total, self._stage(lines, values, refused), refusals)

    def _fit(self, lines: list[int], rows: list[list[str]], refusals: list[Refusal]) -> tuple[list[int], list[list[str]]]:
        """Every row as wide as the header: spreadsheets leave out empty cells at the end, or add some."""
        width = self._width
        if all(len(row) == width for row in rows):
            return lines, rows
        kept_lines, kept = [], []
        for line, row in zip(lines, rows, strict=True):
            if any(row[width:]):
                message = f"The row has more cells than the header's {width}; a cell that holds the delimiter must stand in quotes."
                refusals.append(Refusal(line, None, "too_many_columns", message))
            else:
                kept_lines.append(line)
                kept.append(row[:width] + [""] * (width - len(row)))
        return kept_lines, kept

    def _clean(self, cells: Sequence[Sequence[str]]) -> dict[str, list[Value]]:
        found = {column.field: self._cleaners[column.field](cells[column.index]) for column in self._columns if column.field != "phone"}
        nothing: list[Value] = [None] * len(cells[0])
        for column in self._columns:
            if column.field == "phone":
                found["phone"] = phones(cells[column.index], found.get("country", nothing), self._default_country)
        return found

    def _refuse(self, lines: Sequence[int], values: Mapping[str, Sequence[Value]], refusals: list[Refusal]) -> set[int]:
        """The positions of rows that are not taken; one refusal per bad cell."""
        refused: set[int] = set()
        for column in self._columns:
            for position, value in enumerate(values[column.field]):
                if value.__class__ is Malformed:
                    assert isinstance(value, Malformed)
                    refused.add(position)
                    refusals.append(Refusal(lines[position], column.header, value.code, value.message))
        nothing: list[Value] = [None] * len(lines)
        identities = zip(values.get("external_id", nothing), values.get("email", nothing), strict=True)
        for position, (external_id, email) in enumerate(identities):
            if external_id is None and email is None:
                refused.add(position)
                refusals.append(Refusal(lines[position], None, "no_identity", "The row has neither email nor external_id."))
        return refused

    def _stage(self, lines: Sequence[int], values: Mapping[str, list[Value]], refused: set[int]) -> bytes:
        nothing: list[Value] = [None] * len(lines)
        columns: list[Sequence[object]] = [lines, [uuid_utils.uuid7() for _ in lines]]
        columns += [values.get(field, nothing) for field in FIELDS]
        columns += [_objects([column for field, column in values.items() if field.startswith("attributes.")]) or nothing]
        columns += [values.get("tags", nothing)]
        columns += self._consents(values, nothing)
        staged = zip(*columns, strict=True)
        buffer = io.StringIO(newline="")
        csv.writer(buffer, lineterminator="\n").writerows(
            staged if not refused else (row for position, row in enumerate(staged) if position not in refused)
        )
        return buffer.getvalue().encode()

    def _consents(self, values: Mapping[str, list[Value]], nothing: list[Value]) -> list[Sequence[object]]:
        if self._consent is None:
            return [nothing, nothing]
        addresses = values.get(self._consent.field, nothing)
        hashed = self._consent.hashed
        hashes = ["\\x" + hashed(address).hex() if isinstance(address, str) else None for address in addresses]
        return [[uuid_utils.uuid7() for _ in addresses], hashes]


def _objects(members: Sequence[Sequence[Value]]) -> list[Value]:
    """JSON objects out of columns of their members."""
    if not members:
        return []
    joined = (", ".join([member for member in row if isinstance(member, str)]) for row in zip(*members, strict=True))
    return ["{" + text + "}" if text else None for text in joined]
