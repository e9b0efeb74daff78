import pytest

from models.domain.audit import SYSTEM
from models.settings import Settings
from models.store import suppressions
from models.store.session import Database
from models.store.suppressions import address_hash
from tests.api.conftest import Cast, Person

ADA = {"address": "Ada@Example.com", "channel": "email", "reason": "complained"}


async def test_an_address_is_suppressed_once_and_never_shown(alice: Person) -> None:
    first = await alice.client.post("/v1/suppressions", json=ADA)
    second = await alice.client.post("/v1/suppressions", json=ADA | {"address": " ada@example.COM ", "reason": "manual"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    listed = await alice.client.get("/v1/suppressions")
    assert listed.json()["items"] == [first.json()]
    assert "ada@" not in (first.text + listed.text).lower()
    assert len(first.json()["hash_prefix"]) == 8


async def test_it_can_be_asked_whether_an_address_is_suppressed(alice: Person) -> None:
    await alice.client.post("/v1/suppressions", json=ADA)
    await alice.client.post("/v1/suppressions", json={"address": "+1 (212) 555-0123", "channel": "sms"})
    for address, count in (("ADA@example.com", 1), ("bob@example.com", 0), ("+12125550123", 1), ("+12125550124", 0)):
        found = (await alice.client.get("/v1/suppressions", params={"address": address})).json()["items"]
        assert len(found) == count, address
    assert (await alice.client.get("/v1/suppressions", params={"address": "nonsense"})).status_code == 422


async def test_a_release_keeps_the_record_and_can_be_followed_by_a_new_suppression(alice: Person) -> None:
    made = (await alice.client.post("/v1/suppressions", json=ADA)).json()
    path = f"/v1/suppressions/{made['id']}"
    assert (await alice.client.delete(path)).status_code == 422
    for _ in range(2):
        assert (await alice.client.delete(path, params={"reason": "asked_again"})).status_code == 204
    assert (await alice.client.get("/v1/suppressions")).json()["items"] == []
    [kept] = (await alice.client.get("/v1/suppressions", params={"released": True})).json()["items"]
    assert (kept["id"], kept["release_reason"]) == (made["id"], "asked_again")
    assert (await alice.client.post("/v1/suppressions", json=ADA)).status_code == 201
    entries = (await alice.client.get("/v1/audit-entries", params={"subject_kind": "suppression"})).json()["items"]
    assert [entry["action"] for entry in entries] == ["suppression.added", "suppression.released", "suppression.added"]
    assert "ada@" not in str(entries).lower()


@pytest.mark.parametrize("change", [{"address": "nobody"}, {"address": " "}, {"channel": "sms"}, {"reason": "dislike"}, {"extra": 1}])
async def test_what_is_no_suppression_is_refused(alice: Person, change: dict[str, object]) -> None:
    assert (await alice.client.post("/v1/suppressions", json=ADA | change)).status_code == 422


async def test_staff_cannot_take_back_what_the_provider_blocks(alice: Person, database: Database, settings: Settings) -> None:
    hashed = address_hash(settings.derive_key("suppressions"), "sms", "+12125550123")
    async with database.organization(alice.organization_id) as session:
        [identifier] = await suppressions.suppress(session, "sms", [hashed], "unsubscribed", "provider", SYSTEM)
    refused = await alice.client.delete(f"/v1/suppressions/{identifier}", params={"reason": "asked_again"})
    assert refused.status_code == 409


async def test_a_stranger_neither_sees_nor_releases(cast: Cast) -> None:
    made = (await cast.alice.client.post("/v1/suppressions", json=ADA)).json()
    assert (await cast.charlie.client.get("/v1/suppressions", params={"address": ADA["address"]})).json()["items"] == []
    assert (await cast.charlie.client.delete(f"/v1/suppressions/{made['id']}", params={"reason": "other"})).status_code == 404
