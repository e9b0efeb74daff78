"""What may be stored as a draft: any JSON object that PostgreSQL can hold, whether or not it is a journey yet. Pure."""

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from models.domain.errors import Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64


def storable(document: Any, path: str, max_bytes: int = MAX_BYTES) -> list[Problem]:
    """The reasons why this JSON value cannot be kept, each with the path of the value under `path`; empty when it can.

    `max_bytes` is the size of the value as compact UTF-8 JSON.
    """
    problems = list(islice(_walk(document, path, 0), 20))
    if problems:
        return problems
    size = size_in_bytes(document)
    if size > max_bytes:
        return [Problem(path, "too_large", f"At most {max_bytes // 1024} KB; this is {size // 1024 + 1} KB.")]
    return []


def size_in_bytes(document: Any) -> int:
    """As compact UTF-8 JSON."""
    return len(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())


def _walk(value: Any, path: str, depth: int) -> Iterator[Problem]:
    if depth > MAX_DEPTH:
        yield Problem(path, "too_deep", f"At most {MAX_DEPTH} levels of nesting.")
        return
    match value:
        case str():
            yield from _text(value, path)
        case float() if not math.isfinite(value):
            yield Problem(path, "not_finite", "NaN and infinity are not JSON numbers.")
        case dict():
            for key, inner in value.items():
                yield from _text(key, path)
                yield from _walk(inner, f"{path}.{_printable(key)}", depth + 1)
        case list() | tuple():
            for index, inner in enumerate(value):
                yield from _walk(inner, f"{path}[{index}]", depth + 1)


def _text(value: str, path: str) -> Iterator[Problem]:
    """PostgreSQL holds neither NUL characters nor halves of surrogate pairs."""
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        yield Problem(path, "unstorable_text", "Take the NUL characters or lone surrogates out of this text.")


def _printable(key: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in key[:64])
