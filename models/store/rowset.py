"""Many rows as one JSON parameter, for `jsonb_to_recordset`: any mix of types and NULLs, one statement for a batch."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def rowset(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as JSON; ids, times and other values that JSON lacks become their text, which PostgreSQL casts back."""
    return json.dumps([dict(row) for row in rows], default=str)
