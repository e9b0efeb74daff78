"""What a validator says of a value, in words that do not speak of Python. Pure."""

from collections.abc import Mapping
from typing import Any


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
    return str(error["msg"]).removeprefix("Value error, ")


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"
