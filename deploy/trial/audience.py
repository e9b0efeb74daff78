"""Made-up contacts for a trial, imported as a file."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from deploy.trial.api import Api

_ZONES = ("America/New_York", "Europe/Berlin", "Asia/Tokyo", "America/Los_Angeles")
_CONSENT = {"channel": "email", "method": "form", "source": "https://example.com/subscribe", "date": "2026-01-15"}


def addresses(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:06d}@example.com" for number in range(count)]


async def import_contacts(api: Api, emails: Sequence[str], topic: str | None, tags: str = "") -> None:
    """A contact exists for each address; they agreed to `topic` (a key), or to nothing. `tags` as in the file: `a;b`.

    Raises:
        ValueError: a row was refused.
    """
    options = {} if topic is None else {"consent": _CONSENT | {"topic": topic}}
    report: dict[str, Any] = await api.send_file("/v1/contact-imports", "trial.csv", _file(emails, tags), {"options": json.dumps(options)})
    if report["created"] != len(emails):
        raise ValueError(f"Of {len(emails)} contacts {report['created']} were made: {report['refusals'][:3]}")


def _file(emails: Sequence[str], tags: str) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["email", "first_name", "last_name", "timezone", "tags"])
    rows.writerows([email, "Alex", f"Number {number}", _ZONES[number % len(_ZONES)], tags] for number, email in enumerate(emails))
    return text.getvalue().encode()
