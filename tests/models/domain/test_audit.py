import json
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.domain.audit import GENESIS, Actor, NewEntry, canonical, instant, link, plain

ORGANIZATION = UUID(int=1)
NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"


def test_the_hash_of_an_entry_is_over_exactly_this_text() -> None:
    entry = NewEntry("run.paused", "run", "r1", Actor("user", UUID(int=2)), {"runs": 4, "name": "Zoë \u2028\n"})
    text = (
        '{"action":"run.paused","actor":{"id":"00000000-0000-0000-0000-000000000002","kind":"user"},'
        '"details":{"name":"Zoë \u2028\\n","runs":4},"id":"00000000-0000-0000-0000-000000000005",'
        '"occurred_at":"2026-01-31T09:00:00.000000Z","organization_id":"00000000-0000-0000-0000-000000000001",'
        '"sequence":1,"subject":{"id":"r1","kind":"run"}}'
    )
    assert link(ORGANIZATION, 1, GENESIS, UUID(int=5), entry, NOW).hash == sha256(bytes(32) + text.encode()).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"action": "run.resumed"},
        {"subject_kind": "campaign"},
        {"subject_id": "r2"},
        {"actor": Actor("user", UUID(int=9))},
        {"actor": Actor("api_key", UUID(int=2))},
        {"details": {"runs": 5}},
        {"occurred_at": NOW + timedelta(microseconds=1)},
    ],
)
def test_every_field_counts(change: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "action": "run.paused",
        "subject_kind": "run",
        "subject_id": "r1",
        "actor": Actor("user", UUID(int=2)),
        "details": {"runs": 4},
        "occurred_at": NOW,
    }
    one = link(ORGANIZATION, 1, GENESIS, UUID(int=5), NewEntry(**fields), NOW)
    other = link(ORGANIZATION, 1, GENESIS, UUID(int=5), NewEntry(**fields | change), NOW)
    assert one.hash != other.hash


def test_place_chain_and_organization_count() -> None:
    entry = NewEntry("run.paused", "run", "r1")
    hashes = {
        link(ORGANIZATION, 1, GENESIS, UUID(int=5), entry, NOW).hash,
        link(ORGANIZATION, 2, GENESIS, UUID(int=5), entry, NOW).hash,
        link(ORGANIZATION, 1, bytes([1] * 32), UUID(int=5), entry, NOW).hash,
        link(UUID(int=7), 1, GENESIS, UUID(int=5), entry, NOW).hash,
        link(ORGANIZATION, 1, GENESIS, UUID(int=6), entry, NOW).hash,
    }
    assert len(hashes) == 5


def test_the_zone_of_a_time_does_not_count() -> None:
    berlin = NOW.astimezone(timezone(timedelta(hours=1)))
    assert instant(berlin) == instant(NOW) == "2026-01-31T09:00:00.000000Z"


def test_details_become_plain_json() -> None:
    details = {"id": UUID(int=1), "at": NOW, "colour": Colour.RED, "many": (1, 2.0, 0.5, 2**60), "none": None, "yes": True}
    assert plain(details) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2026-01-31T09:00:00.000000Z",
        "colour": "red",
        "many": [1, 2, "0.5", "1152921504606846976"],
        "none": None,
        "yes": True,
    }


def test_what_has_no_plain_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        plain({"ids": {1, 2}})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="ascii"), max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(st.characters(codec="ascii"), max_size=8), VALUES, max_size=5))
def test_the_canonical_form_is_rfc_8785_and_survives_json(details: dict[str, Any]) -> None:
    body = plain(details)
    assert canonical(body) == rfc8785.dumps(body)
    assert canonical(json.loads(json.dumps(body))) == canonical(body)
