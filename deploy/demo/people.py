"""The demo's people, as its file describes them, and what the file says they agreed to.

This is the demo's own reading of the file. It shares nothing with the product's import, so that the two can be compared.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("contacts.csv")
TOPICS = {"newsletter": "Newsletter", "product_news": "Product news", "events": "Events"}


@dataclass(frozen=True)
class Statement:
    """One thing a person said about one topic. `at` is ISO 8601 with a zone."""

    topic: str
    status: str  # granted | withdrawn
    at: str


@dataclass(frozen=True)
class Person:
    external_id: str
    email: str  # as compared: without spaces, in lower case; empty when there is none
    written_email: str  # as the file writes it
    phone: str
    first_name: str
    last_name: str
    plan: str
    opted_out: str  # unsubscribed | bounced | complained, or empty
    said: tuple[tuple[str, str], ...]  # (topic, yes | left | back | nothing)
    moments: tuple[str, str, str]  # agreed, withdrawn, agreed again
    method: str
    source: str

    def answer(self, topic: str) -> str:
        """`yes`, `left`, `back`, or nothing."""
        return dict(self.said)[topic]

    def statements(self) -> Iterator[Statement]:
        """Every line that belongs into the consent ledger, oldest first for each topic."""
        lines = {"yes": 1, "left": 2, "back": 3}
        for topic, answer in self.said:
            for at, status in list(zip(self.moments, ("granted", "withdrawn", "granted"), strict=True))[: lines.get(answer, 0)]:
                yield Statement(topic, status, at)


def read_file(count: int) -> tuple[bytes, list[Person]]:
    """The first `count` people of the file: as a file of their own, and read."""
    with FILE.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row, _ in zip(reader, range(count), strict=False)]
        columns = list(reader.fieldnames or ())
    return _as_file(columns, rows), [_person(row) for row in rows]


def _as_file(columns: Sequence[str], rows: Sequence[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _person(row: dict[str, str]) -> Person:
    return Person(
        external_id=row["external_id"],
        email=row["email"].strip().lower(),
        written_email=row["email"].strip(),
        phone=row["phone"],
        first_name=row["first_name"],
        last_name=row["last_name"],
        plan=row["plan"],
        opted_out=row["opted_out"],
        said=tuple((topic, row[topic]) for topic in TOPICS),
        moments=(row["consented_at"], row["withdrawn_at"], row["renewed_at"]),
        method=row["consent_method"],
        source=row["consent_source"],
    )
