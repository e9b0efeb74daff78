"""An attacker with the file, and then one with the file and the code, against the verifier."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from models.domain.audit import GENESIS, Actor, Link, NewEntry, entry_hash, link
from models.domain.audit_export import Origin, checkpoint_line, entry_lines, header_line, trailer_line
from models.domain.audit_verification import Verification, verify, vouched_hashes

ORGANIZATION = UUID(int=1)
NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)
KEY = b"the installation's key"
Line = dict[str, Any]


def sign(message: bytes, key: bytes = KEY) -> bytes:
    """Stands in for Ed25519, which the domain does not import."""
    return sha256(key + message).digest()


def check(key: bytes, signature: bytes, message: bytes) -> bool:
    return sign(message, key) == signature


def chain(count: int) -> list[Link]:
    entries: list[Link] = []
    for number in range(1, count + 1):
        entry = NewEntry("delivery.accepted", "delivery", f"d{number}", Actor("system"), {"attempt": number})
        previous = entries[-1].hash if entries else GENESIS
        entries.append(link(ORGANIZATION, number, previous, UUID(int=number), entry, NOW + timedelta(seconds=number)))
    return entries


def export(count: int) -> list[Line]:
    origin = Origin(ORGANIZATION, "acme", NOW, KEY)
    entries = chain(count)
    end = entries[-1].hash if entries else GENESIS
    lines = [header_line(origin), *entry_lines(origin, entries, sign), trailer_line(origin, count, end, sign)]
    return [json.loads(line) for line in lines]


def verified(lines: list[Line], **options: Any) -> Verification:
    return verify([json.dumps(line) for line in lines], check, **options)


def found(lines: list[Line], **options: Any) -> list[tuple[str, int | None]]:
    return [(finding.kind, finding.sequence) for finding in verified(lines, **options).findings]


def recompute(lines: list[Line]) -> list[Line]:
    """What somebody does who knows the code but not the key: number and hash everything afresh."""
    previous, number = GENESIS, 0
    for line in lines:
        if line["kind"] == "entry":
            number += 1
            body = {key: value for key, value in line.items() if key not in ("kind", "previous_hash", "hash")}
            body |= {"sequence": number, "organization_id": str(ORGANIZATION)}
            line["sequence"], line["previous_hash"] = number, previous.hex()
            previous = entry_hash(previous, body)
            line["hash"] = previous.hex()
    return lines


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 350])
def test_an_untouched_export_is_fine(count: int) -> None:
    result = verified(export(count), public_key=KEY)
    assert (result.ok, result.entries, result.head_sequence, result.pinned, result.findings) == (True, count, count, True, ())


# In an export line 0 is the header, so entry N stands at index N as long as N <= 100.
def change(lines: list[Line]) -> None:
    lines[5]["details"]["attempt"] = 99


def change_with_hash(lines: list[Line]) -> None:
    lines[5]["details"]["attempt"] = 99
    body = {key: value for key, value in lines[5].items() if key not in ("kind", "previous_hash", "hash")}
    lines[5]["hash"] = entry_hash(bytes.fromhex(lines[5]["previous_hash"]), {**body, "organization_id": str(ORGANIZATION)}).hex()


def change_the_first_with_hash(lines: list[Line]) -> None:
    lines[1]["previous_hash"] = "11" * 32
    body = {key: value for key, value in lines[1].items() if key not in ("kind", "previous_hash", "hash")}
    lines[1]["hash"] = entry_hash(bytes.fromhex("11" * 32), {**body, "organization_id": str(ORGANIZATION)}).hex()


def change_when(lines: list[Line]) -> None:
    lines[5]["occurred_at"] = "2025-01-01T00:00:00.000000Z"


def change_who(lines: list[Line]) -> None:
    lines[5]["actor"] = {"kind": "user", "id": str(UUID(int=3))}


def add_a_field(lines: list[Line]) -> None:
    lines[5]["approved_by"] = "alice"


def remove(lines: list[Line]) -> None:
    del lines[5]


def remove_three(lines: list[Line]) -> None:
    del lines[5:8]


def remove_the_first(lines: list[Line]) -> None:
    del lines[1]


def remove_the_last(lines: list[Line]) -> None:
    del lines[20]


def insert_a_copy(lines: list[Line]) -> None:
    lines.insert(8, dict(lines[5]))


def insert_a_forgery(lines: list[Line]) -> None:
    forged = {**lines[5], "details": {"attempt": 0}}
    body = {key: value for key, value in forged.items() if key not in ("kind", "previous_hash", "hash")}
    forged["hash"] = entry_hash(bytes.fromhex(forged["previous_hash"]), {**body, "organization_id": str(ORGANIZATION)}).hex()
    lines.insert(6, forged)


def append_a_forgery(lines: list[Line]) -> None:
    forged = {**lines[20], "sequence": 21, "previous_hash": lines[20]["hash"]}
    body = {key: value for key, value in forged.items() if key not in ("kind", "previous_hash", "hash")}
    forged["hash"] = entry_hash(bytes.fromhex(forged["previous_hash"]), {**body, "organization_id": str(ORGANIZATION)}).hex()
    lines.insert(21, forged)


def swap(lines: list[Line]) -> None:
    lines[5], lines[6] = lines[6], lines[5]


def move_to_the_end(lines: list[Line]) -> None:
    lines.insert(20, lines.pop(5))


def swap_numbers(lines: list[Line]) -> None:
    lines[5]["sequence"], lines[6]["sequence"] = 6, 5
    lines[5], lines[6] = lines[6], lines[5]


def cut_off(lines: list[Line]) -> None:
    del lines[15:]


def write_nonsense(lines: list[Line]) -> None:
    lines.insert(7, {"hello": "world"})


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (change, [("changed", 5)]),
        (change_with_hash, [("changed", 5)]),
        (change_the_first_with_hash, [("changed", 1)]),
        (change_when, [("changed", 5)]),
        (change_who, [("changed", 5)]),
        (add_a_field, [("changed", 5)]),
        (remove, [("removed", 5)]),
        (remove_three, [("removed", 5)]),
        (remove_the_first, [("removed", 1)]),
        (remove_the_last, [("removed", 20)]),
        (insert_a_copy, [("inserted", 5)]),
        (insert_a_forgery, [("inserted", 5)]),
        (append_a_forgery, [("inserted", 21)]),
        (swap, [("reordered", 5)]),
        (move_to_the_end, [("reordered", 5)]),
        (swap_numbers, [("changed", 5), ("changed", 6)]),
        (cut_off, [("truncated", 15)]),
        (write_nonsense, [("malformed", None)]),
    ],
)
def test_an_edit_of_the_file_is_found_and_placed(attack: Callable[[list[Line]], None], expected: list[tuple[str, int | None]]) -> None:
    lines = export(20)
    attack(lines)
    assert found(lines)[: len(expected)] == expected
    assert {place for _, place in found(lines)} <= {place for _, place in expected} | {6}


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (change, ("rewritten", 1)),
        (swap, ("rewritten", 1)),
        (remove, ("removed", 350)),
        (insert_a_copy, ("inserted", 351)),
    ],
)
def test_a_recomputed_chain_does_not_match_what_was_signed(attack: Callable[[list[Line]], None], expected: tuple[str, int]) -> None:
    lines = export(350)
    attack(lines)
    assert expected in found(recompute(lines))


def test_a_recomputed_stretch_is_placed_between_checkpoints() -> None:
    lines = export(350)
    next(line for line in lines if line.get("sequence") == 150)["details"]["attempt"] = 0
    assert found(recompute(lines))[0] == ("rewritten", 101)


def test_a_file_signed_with_another_key_is_refused_when_the_key_is_pinned() -> None:
    lines = [json.loads(line) for line in _forged_export()]
    assert verified(lines).ok
    assert not verified(lines).pinned
    assert ("unsigned", None) in found(lines, public_key=KEY)


def _forged_export() -> list[str]:
    forger = b"somebody else's key"
    origin = Origin(ORGANIZATION, "acme", NOW, forger)
    entries = chain(3)

    def forge(message: bytes) -> bytes:
        return sign(message, forger)

    return [header_line(origin), *entry_lines(origin, entries, forge), trailer_line(origin, 3, entries[-1].hash, forge)]


def test_an_edited_trailer_is_not_signed() -> None:
    lines = export(20)
    del lines[20]
    lines[-1] |= {"sequence": 19, "hash": lines[19]["hash"]}
    assert found(lines) == [("unsigned", 19)]


@pytest.mark.parametrize("name", ["organization", "exported_at"])
def test_an_edited_header_is_found(name: str) -> None:
    lines = export(20)
    lines[0][name] = "2025-01-01T00:00:00.000000Z"
    assert found(lines) == [("changed", None)]


def test_a_field_added_to_the_header_is_found() -> None:
    lines = export(20)
    lines[0]["approved_by"] = "alice"
    assert found(lines) == [("changed", None)]


@pytest.mark.parametrize(
    ("index", "original", "doubled", "place"),
    [
        (5, '"action":', '"action":"evil","action":', 5),
        (5, '{"attempt":', '{"attempt":9,"attempt":', 5),
        (0, '"organization":', '"organization":"evil","organization":', None),
        (21, '"sequence":', '"sequence":7,"sequence":', None),
    ],
)
def test_a_name_that_is_given_twice_is_found(index: int, original: str, doubled: str, place: int | None) -> None:
    lines = [json.dumps(line, separators=(",", ":")) for line in export(20)]
    assert original in lines[index]
    lines[index] = lines[index].replace(original, doubled, 1)
    result = verify(lines, check)
    assert [(finding.kind, finding.sequence) for finding in result.findings] == [("malformed", place)]


@pytest.mark.parametrize("constant", ["NaN", "Infinity"])
def test_a_number_that_is_not_json_is_found(constant: str) -> None:
    lines = [json.dumps(line) for line in export(20)]
    lines[5] = lines[5].replace('"attempt": 5', f'"attempt": {constant}')
    assert ("malformed", None) in [(finding.kind, finding.sequence) for finding in verify(lines, check).findings]


def test_a_hash_in_another_spelling_is_found() -> None:
    lines = export(20)
    lines[20]["hash"] = lines[20]["hash"].upper()
    assert not verified(lines).ok


@pytest.mark.parametrize("number", [43, 44, 99, 101, 99_999])
@pytest.mark.parametrize("count", [42, 120, 350])
def test_one_entry_that_does_not_belong_is_placed_and_blames_no_other(number: int, count: int) -> None:
    lines = export(count)
    lines.insert(42, {**lines[41], "sequence": number})
    assert found(lines) == [("inserted", 41)]


@pytest.mark.parametrize(("index", "place"), [(1, 1), (101, 100), (21, 20)])
def test_one_entry_that_does_not_belong_is_placed_before_checkpoints_and_at_the_beginning(index: int, place: int) -> None:
    lines = export(350)
    lines.insert(index, {**lines[7], "sequence": 99_999})
    assert found(lines) == [("inserted", place)]


def test_an_entry_moved_forward_blames_no_other() -> None:
    lines = export(120)
    lines.insert(5, lines.pop(50))
    assert found(lines) == [("reordered", 50)]


def test_another_organizations_entry_does_not_fit() -> None:
    lines = export(20)
    lines[0]["organization_id"] = str(UUID(int=2))
    assert ("changed", 1) in found(lines)
    lines = export(20)
    lines[5]["organization_id"] = str(UUID(int=2))
    assert found(lines) == [("changed", 5)]


def test_an_earlier_checkpoint_holds_a_later_export_to_its_word() -> None:
    kept = checkpoint_line(ORGANIZATION, 10, chain(10)[-1].hash, sign)
    earlier = vouched_hashes([json.dumps({**json.loads(kept), "organization_id": str(ORGANIZATION)})], check, KEY)
    assert earlier == {10: chain(10)[-1].hash.hex()}
    assert found(export(20), earlier=earlier) == []
    assert found(export(20), earlier={10: "00" * 32}) == [("rewritten", 10)]
    assert found(export(8), earlier=earlier) == [("truncated", 9)]


def test_an_earlier_checkpoint_with_a_false_signature_vouches_for_nothing() -> None:
    kept = json.loads(checkpoint_line(ORGANIZATION, 10, GENESIS, sign)) | {"organization_id": str(ORGANIZATION), "sequence": 11}
    assert vouched_hashes([json.dumps(kept)], check, KEY) == {}


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"kind":"entry"}', '{"kind":"header","format":"other"}', "[" * 10_000])
def test_what_is_not_an_export_is_refused(text: str) -> None:
    assert not verify([text], check).ok
