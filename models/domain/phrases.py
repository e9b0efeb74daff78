"""What a validator says of a value, and where it stands, in words that do not speak of Python. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

# By the pattern of a field: what fits it. tests/models/domain/test_phrases.py holds this to the patterns in the code.
FORMS: Mapping[str, str] = {
    r"^[a-z][a-z0-9_-]{0,62}$": "Use 1 to 63 lower-case letters, digits, - and _, beginning with a letter.",
    r"^[a-z][a-z0-9_-]*$": "Use lower-case letters, digits, - and _, beginning with a letter.",
    r"^[a-z][a-z0-9_]{0,62}$": "Use 1 to 63 lower-case letters, digits and _, beginning with a letter.",
    r"^[a-z0-9][a-z0-9_-]{0,62}$": "Use 1 to 63 lower-case letters, digits, - and _, beginning with a letter or a digit.",
    r"^[A-Z]{2}$": "Give two capital letters, such as DE.",
    r"^([01][0-9]|2[0-3]):[0-5][0-9]$": "Give a time of day from 00:00 to 23:59, such as 09:30.",
    r"^[A-Za-z0-9.:-]+$": "Use letters, digits, dots, hyphens and colons only, such as mail.example.com.",
    r"^[A-Za-z0-9-]{1,100}$": "Use 1 to 100 letters, digits and hyphens, such as X-Source.",
    r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$": "Name keys and indexes, divided by dots, such as order.items.0.price.",
    r"^[ -~]*$": "Use printable ASCII characters only.",
    r"^[!-~]+$": "Use printable ASCII characters only, without spaces.",
    r"^[^\x00-\x1f]+$": "Leave control characters out, such as line breaks and tabs.",
    r"^[^\x00-\x1f]*[^\x00-\x1f\s][^\x00-\x1f]*$": "Write more than spaces, and leave control characters out, such as tabs.",
    r"^[^\x00]*$": "Leave NUL characters out.",
}


def json_path(location: Sequence[Any]) -> str:
    """`("steps", 3, "topic")` as `steps[3].topic`; what is wrong with a key has the key's own path."""
    path = ""
    for part in location[:-1] if [*location[-1:]] == ["[key]"] else location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def plain_message(error: Mapping[str, Any]) -> str:
    """The message for one of pydantic's `errors()`; never holds the refused value."""
    limits = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "This field is required."
        case "extra_forbidden":
            return "There is no such field."
        case "too_short" if "min_length" in limits:
            return f"Give at least {_items(limits['min_length'])}."
        case "too_long" if "max_length" in limits:
            return f"Give at most {_items(limits['max_length'])}."
        case "tuple_type" | "list_type":
            return "Give a list."
        case "dict_type" | "model_type" | "model_attributes_type" | "dataclass_type":
            return "Give an object."
        case "uuid_type" | "uuid_parsing":
            return "Give an id, such as 0190a1b2-0000-7000-8000-000000000001."
        case "time_delta_type" | "time_delta_parsing":
            return "Write a duration as ISO 8601 does, such as PT10S, PT15M or P3D."
        case "string_pattern_mismatch":
            return FORMS.get(str(limits.get("pattern")), "This is not of the form that is asked for.")
    return str(error["msg"]).removeprefix("Value error, ")


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"
