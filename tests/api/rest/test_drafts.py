from typing import Any

from tests.api.conftest import Person


async def create(person: Person, draft: Any, name: str = "Welcome") -> str:
    created = await person.client.post("/v1/journeys", json={"name": name, "draft": draft})
    assert created.status_code == 201, created.text
    return f"/v1/journeys/{created.json()['id']}"


async def save(person: Person, journey: str, revision: int, **change: Any) -> None:
    saved = await person.client.patch(f"{journey}/draft", json=change, headers={"If-Match": f'"{revision}"'})
    assert saved.status_code == 200, saved.text


async def test_every_save_is_kept(alice: Person) -> None:
    journey = await create(alice, {"v": 1})
    await save(alice, journey, 1, draft={"v": 2})
    await save(alice, journey, 2, name="Hello")
    await alice.client.patch(f"{journey}/draft", json={"draft": {"v": 9}}, headers={"If-Match": '"1"'})  # too late: not saved
    first = (await alice.client.get(f"{journey}/draft-revisions?limit=2")).json()
    rest = (await alice.client.get(f"{journey}/draft-revisions", params={"cursor": first["next_cursor"]})).json()
    found = [(one["revision"], one["name"], one["origin"], one["saved_by"]) for one in first["items"] + rest["items"]]
    person = str(alice.user_id)  # and not the key's id: who saved with a key has saved
    assert found == [(1, "Welcome", "edit", person), (2, "Welcome", "edit", person), (3, "Hello", "edit", person)]
    drafts = [(await alice.client.get(f"{journey}/draft-revisions/{number}")).json()["draft"] for number in (1, 2, 3)]
    assert drafts == [{"v": 1}, {"v": 2}, {"v": 2}]
    assert (await alice.client.get(f"{journey}/draft-revisions/4")).status_code == 404
