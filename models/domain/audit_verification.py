"""Verifying an audit export: which entries are not those that were signed. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from models.domain.audit import GENESIS, entry_hash
from models.domain.audit_export import FORMAT, checkpoint_message, header_hash, read_line

LARGEST_GAP: Final = 1_000_000  # a sequence number further on is taken for nonsense

CheckSignature = Callable[[bytes, bytes, bytes], bool]  # public key, signature, message
Kind = Literal["changed", "removed", "inserted", "reordered", "rewritten", "truncated", "unsigned", "malformed"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what, and at which sequence number (None: the file as a whole)."""

    kind: Kind
    sequence: int | None
    message: str


@dataclass(frozen=True)
class Verification:
    """`ok` says that the entries are those that were signed. `pinned` says that the key was known beforehand: without
    that, somebody may have signed a forged file with a key of their own."""

    ok: bool
    entries: int
    findings: tuple[Finding, ...]
    organization_id: str | None
    public_key: str | None
    pinned: bool
    head_sequence: int
    head_hash: str


def verify(
    lines: Iterable[str], check_signature: CheckSignature, public_key: bytes | None = None, earlier: Mapping[int, str] | None = None
) -> Verification:
    """Whether the lines are the unchanged record, and otherwise which entries are not.

    `public_key` pins the signer. `earlier` holds hashes (hex) by sequence number from checkpoints that were kept
    before: the chain must still go through them.
    """
    walk = _Walk(check_signature, public_key, dict(earlier or {}))
    for number, line in enumerate(lines, 1):
        if line.strip():
            walk.read(number, line)
    return walk.conclude()


def vouched_hashes(lines: Iterable[str], check_signature: CheckSignature, public_key: bytes | None = None) -> dict[int, str]:
    """Hashes (hex) by sequence number that an earlier export, or checkpoints kept on their own, vouch for.

    Lines whose signature does not hold are left out.
    """
    found: dict[int, str] = {}
    organization_id, key = "", public_key or b""
    for line in lines:
        body, repeated = read_line(line)
        if repeated:
            raise ValueError("the earlier file gives a name twice in one object")
        organization_id = str(body.pop("organization_id", organization_id))
        if (shown := body.pop("public_key", None)) and public_key is None:
            key = bytes.fromhex(shown)
        if body.pop("kind") in ("checkpoint", "trailer"):
            signature = bytes.fromhex(body.pop("signature"))
            if check_signature(key, signature, checkpoint_message(organization_id, body)):
                found[int(body["sequence"])] = body["hash"]
    return found


@dataclass(frozen=True)
class _Entry:
    """`intact`: the content matches its own hash."""

    sequence: int
    claimed: bytes
    previous: bytes
    intact: bool


@dataclass
class _Walk:
    """One pass over a file. `last` is the highest sequence number so far, with its hash.

    An entry that leaves numbers out is held until the next line shows whether the record goes on from it or from before
    it: one line that does not belong must not make all others look out of place.
    """

    check_signature: CheckSignature
    pinned: bytes | None
    earlier: dict[int, str]
    organization_id: str | None = None
    public_key: bytes | None = None
    entries: int = 0
    last: int = 0
    last_hash: bytes = GENESIS
    header: str = ""  # its hash (hex)
    held: _Entry | None = None
    early: dict[int, tuple[_Entry, int]] = field(default_factory=dict)  # stands before its place, with the entry it follows
    vouched: int = 0  # the sequence number of the last checkpoint
    ended: bool = False
    missing: set[int] = field(default_factory=set)
    blamed: set[int] = field(default_factory=set)  # every sequence number that a finding names
    findings: list[Finding] = field(default_factory=list)

    def read(self, number: int, line: str) -> None:
        try:
            body, repeated = read_line(line)
            kind = body.pop("kind")
            if repeated:
                self._repeated(number, kind, body, repeated)
            if self.ended or (kind == "header") != (self.organization_id is None):
                raise ValueError
            {"header": self._header, "entry": self._entry, "checkpoint": self._checkpoint, "trailer": self._trailer}[kind](body)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._found("malformed", None, f"Line {number} is not a line of an audit export, or stands where it does not belong.")

    def _header(self, body: dict[str, Any]) -> None:
        if body["format"] != FORMAT:
            raise ValueError
        self.header = header_hash(body)
        self.public_key = bytes.fromhex(body["public_key"])
        self.organization_id = str(body["organization_id"])
        if self.pinned not in (None, self.public_key):
            self._found("unsigned", None, "The file is signed with another key than the one you gave.")

    def _entry(self, body: dict[str, Any]) -> None:
        sequence, claimed, previous = int(body["sequence"]), _bytes(body.pop("hash")), _bytes(body.pop("previous_hash"))
        whole = {"organization_id": self.organization_id, **body}
        entry = _Entry(sequence, claimed, previous, "organization_id" not in body and entry_hash(previous, whole) == claimed)
        self.entries += 1
        swapped = self.held is not None and (self.held.sequence, self.held.previous) == (sequence + 1, claimed)
        self._settle(sequence == self.last + 1 and previous == self.last_hash and not swapped)
        if sequence - self.last > LARGEST_GAP:
            raise ValueError
        if sequence > self.last + 1:
            self._take_early()
        if sequence > self.last + 1:
            self.held = entry
        else:
            self._place(entry)

    def _settle(self, goes_on_before: bool) -> None:
        """What to make of the entry that is held, now that the record is known to go on from before it, or not."""
        held, self.held = self.held, None
        if held and goes_on_before and held.sequence not in self.early:
            self.early[held.sequence] = (held, self.last)
        elif held and goes_on_before:
            self._stray(held, self.last)
        elif held:
            self._place(held)

    def _take_early(self) -> None:
        """Entries that stood before their place, where they fit now."""
        while (waiting := self.early.get(self.last + 1)) and waiting[0].intact and waiting[0].previous == self.last_hash:
            entry, after = self.early.pop(self.last + 1)
            self._place(entry)
            self._found("reordered", entry.sequence, f"Entry {entry.sequence} stands after entry {after}.")

    def _stray(self, entry: _Entry, after: int) -> None:
        place = f"after entry {after}" if after else "before entry 1"
        self._found("inserted", after or 1, f"An entry that calls itself {entry.sequence} was inserted {place}.")

    def _place(self, entry: _Entry) -> None:
        sequence = entry.sequence
        if not entry.intact:
            self._found("changed", sequence, f"Entry {sequence} does not match its own hash: its content was changed.")
        if sequence <= self.last:
            self._out_of_place(sequence)
        else:
            self._next(sequence, entry.claimed, entry.previous, entry.intact)
        if sequence in self.earlier and self.earlier[sequence] != entry.claimed.hex():
            self._found("rewritten", sequence, f"Entry {sequence} is not the one that an earlier checkpoint vouches for.")

    def _out_of_place(self, sequence: int) -> None:
        if sequence in self.missing:
            self.missing.discard(sequence)
            self._found("reordered", sequence, f"Entry {sequence} stands after entry {self.last}.")
        else:
            self._found("inserted", sequence, f"There is a second entry {sequence}, after entry {self.last}.")

    def _next(self, sequence: int, claimed: bytes, previous: bytes, intact: bool) -> None:
        self.missing.update(range(self.last + 1, sequence))
        if sequence == self.last + 1 and previous != self.last_hash and intact and not self._blamed(self.last):
            where, why = (self.last, "was changed, and its hash with it") if self.last else (sequence, "is not the beginning of a chain")
            self._found("changed", where, f"Entry {where} {why}: entry {sequence} follows a different one.")
        self.last, self.last_hash = sequence, claimed

    def _checkpoint(self, body: dict[str, Any]) -> None:
        self._check_signed(body)
        self._settle(self._stands(body))
        self._take_early()
        if body["sequence"] == self.last and body["hash"] != self.last_hash.hex():
            self._rewritten(self.last)
        self.vouched = max(self.vouched, int(body["sequence"]))

    def _trailer(self, body: dict[str, Any]) -> None:
        self.ended = True
        self._check_signed(body)
        self._settle(self._stands(body))
        self._take_early()
        if body.get("header_hash") != self.header:
            self._found("changed", None, "The header is not the one that was signed: its organization, time or key was changed.")
        end = int(body["sequence"])
        if end > self.last:
            self._found("removed", self.last + 1, f"{_entries(self.last + 1, end)} missing at the end.")
        elif end < self.last:
            self._found("inserted", end + 1, f"The signed record ends at entry {end}; this one goes on to {self.last}.")
        elif body["hash"] != self.last_hash.hex():
            self._rewritten(end)

    def _stands(self, body: dict[str, Any]) -> bool:
        return (body["sequence"], body["hash"]) == (self.last, self.last_hash.hex())

    def _check_signed(self, body: dict[str, Any]) -> None:
        signature = _bytes(body.pop("signature"))
        message = checkpoint_message(str(self.organization_id), body)
        if not self.check_signature(self.pinned or self.public_key or b"", signature, message):
            self._found("unsigned", int(body["sequence"]), f"The signature for entry {body['sequence']} is not by the key.")

    def _rewritten(self, end: int) -> None:
        """A recomputed chain cannot tell which entry of the stretch was touched, unless something else shows it."""
        first = self.vouched + 1
        if not any(self._blamed(sequence) for sequence in range(first, end + 1)):
            self._found("rewritten", first, f"{_entries(first, end)} not those that were signed: the chain was recomputed.")

    def conclude(self) -> Verification:
        self._settle(False)
        self._take_early()
        for entry, after in self.early.values():
            self._stray(entry, after)
        for first, end in _ranges(sorted(self.missing)):
            self._found("removed", first, f"{_entries(first, end)} missing.")
        if not self.ended:
            self._found("truncated", self.last + 1, f"The file ends without its trailer: entries after {self.last} may be missing.")
        if self.earlier and max(self.earlier) > self.last:
            end = max(self.earlier)
            self._found("truncated", self.last + 1, f"An earlier checkpoint knows entries up to {end}; this file ends at {self.last}.")
        findings = tuple(sorted(self.findings, key=lambda finding: (finding.sequence is None, finding.sequence or 0)))
        key = None if self.public_key is None else self.public_key.hex()
        return Verification(
            not findings, self.entries, findings, self.organization_id, key, self.pinned is not None, self.last, self.last_hash.hex()
        )

    def _repeated(self, number: int, kind: str, body: dict[str, Any], names: tuple[str, ...]) -> None:
        sequence = int(body["sequence"]) if kind == "entry" else None
        said = ", ".join(f'"{name[:40]}"' for name in names)
        self._found("malformed", sequence, f"Line {number} gives {said} more than once; no export does.")

    def _blamed(self, sequence: int) -> bool:
        return sequence in self.missing or sequence in self.blamed

    def _found(self, kind: Kind, sequence: int | None, message: str) -> None:
        self.findings.append(Finding(kind, sequence, message))
        if sequence is not None:
            self.blamed.add(sequence)


def _bytes(text: str) -> bytes:
    """Of the one hexadecimal form that an export has."""
    found = bytes.fromhex(text)
    if found.hex() != text:
        raise ValueError
    return found


def _entries(first: int, end: int) -> str:
    return f"Entry {first} is" if first == end else f"Entries {first} to {end} are"


def _ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as inclusive ranges."""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index == len(numbers) or numbers[index] != numbers[index - 1] + 1:
            yield numbers[start], numbers[index - 1]
            start = index
