"""The audit export: a file of JSON lines that can be verified without the product. Pure.

One header, the entries in order with a signed checkpoint after every `CHECKPOINT_EVERY` of them, one signed trailer.
The hash chain shows a changed, removed, inserted or reordered entry. The signatures show a chain that was recomputed
or cut off: they say which hash stood at which sequence number when the product exported. The trailer's also covers
the header.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from models.domain.audit import Link, canonical, document, instant

FORMAT: Final = "leadstats-audit-1"
CHECKPOINT_EVERY: Final = 100

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Origin:
    """Whose record this is, and when it was exported (aware UTC). `public_key` is Ed25519, raw."""

    organization_id: UUID
    organization: str
    exported_at: datetime
    public_key: bytes


def header_line(origin: Origin) -> str:
    return _line("header", _header(origin))


def _header(origin: Origin) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "organization_id": str(origin.organization_id),
        "organization": origin.organization,
        "exported_at": instant(origin.exported_at),
        "public_key": origin.public_key.hex(),
    }


def header_hash(body: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the canonical form of a header without its `kind`."""
    return hashlib.sha256(canonical(body)).hexdigest()


def entry_lines(origin: Origin, entries: Iterable[Link], sign: Sign) -> Iterator[str]:
    """The entries, and a checkpoint where one is due."""
    for entry in entries:
        yield entry_line(origin.organization_id, entry)
        if entry.sequence % CHECKPOINT_EVERY == 0:
            yield checkpoint_line(origin.organization_id, entry.sequence, entry.hash, sign)


def entry_line(organization_id: UUID, entry: Link) -> str:
    body = document(
        organization_id,
        entry.sequence,
        entry.id,
        entry.occurred_at,
        entry.actor,
        entry.action,
        entry.subject_kind,
        entry.subject_id,
        entry.details,
    )
    del body["organization_id"]  # the header has it
    return _line("entry", body | {"previous_hash": entry.previous_hash.hex(), "hash": entry.hash.hex()})


def checkpoint_line(organization_id: UUID, sequence: int, chain_hash: bytes, sign: Sign) -> str:
    body = {"sequence": sequence, "hash": chain_hash.hex()}
    return _line("checkpoint", body | {"signature": sign(checkpoint_message(str(organization_id), body)).hex()})


def trailer_line(origin: Origin, sequence: int, chain_hash: bytes, sign: Sign) -> str:
    """The end of the chain; `sequence` is also the number of entries."""
    covered = {"exported_at": instant(origin.exported_at), "header_hash": header_hash(_header(origin))}
    body = {"sequence": sequence, "hash": chain_hash.hex(), **covered}
    return _line("trailer", body | {"signature": sign(checkpoint_message(str(origin.organization_id), body)).hex()})


def checkpoint_message(organization_id: str, body: Mapping[str, Any]) -> bytes:
    """What is signed: at this sequence number stood this hash."""
    return canonical({"format": FORMAT, "organization_id": organization_id, **body})


def read_line(line: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The object on a line, and the names that some object in it gives more than once: readers differ in which they take.

    Raises:
        ValueError, RecursionError: it is not a JSON object.
    """
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated.extend(name for position, name in enumerate(names) if name in names[:position])
        return dict(pairs)

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    body = json.loads(line, object_pairs_hook=collect, parse_constant=refuse)
    if not isinstance(body, dict):
        raise ValueError("not an object")
    return body, tuple(dict.fromkeys(repeated))


def _line(kind: str, body: Mapping[str, Any]) -> str:
    return json.dumps({"kind": kind, **body}, ensure_ascii=False, separators=(",", ":")) + "\n"
