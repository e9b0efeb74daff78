from tests.api.conftest import Cast, Person


async def test_a_topic_is_created_read_changed_and_archived(alice: Person) -> None:
    made = await alice.client.post("/v1/topics", json={"key": "news", "name": "News", "description": "Once a month"})
    assert made.status_code == 201
    path = f"/v1/topics/{made.json()['id']}"
    assert (await alice.client.get(path)).json() == made.json()
    changed = (await alice.client.patch(path, json={"name": "Monthly news", "archived": True})).json()
    assert (changed["name"], changed["description"], changed["archived_at"] is None) == ("Monthly news", "Once a month", False)
    assert (await alice.client.patch(path, json={"archived": False})).json()["archived_at"] is None


async def test_a_key_is_taken_once_per_organization(cast: Cast) -> None:
    topic = {"key": "news", "name": "News"}
    answers = [await person.client.post("/v1/topics", json=topic) for person in (cast.alice, cast.alice, cast.charlie)]
    assert [answer.status_code for answer in answers] == [201, 409, 201]


async def test_topics_are_listed_in_pages_and_found_by_key(alice: Person) -> None:
    for number in range(3):
        await alice.client.post("/v1/topics", json={"key": f"t{number}", "name": "T"})
    first = (await alice.client.get("/v1/topics", params={"limit": 2})).json()
    rest = (await alice.client.get("/v1/topics", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [topic["key"] for topic in first["items"] + rest["items"]] == ["t0", "t1", "t2"]
    assert rest["next_cursor"] is None
    assert [topic["key"] for topic in (await alice.client.get("/v1/topics", params={"key": "t1"})).json()["items"]] == ["t1"]


async def test_a_key_never_changes_and_has_a_form(alice: Person) -> None:
    made = (await alice.client.post("/v1/topics", json={"key": "news", "name": "News"})).json()
    assert (await alice.client.patch(f"/v1/topics/{made['id']}", json={"key": "other"})).status_code == 422
    for key in ("News", "", "a b", "x" * 64):
        assert (await alice.client.post("/v1/topics", json={"key": key, "name": "x"})).status_code == 422
    assert (await alice.client.patch(f"/v1/topics/{made['id']}", json={"name": ""})).status_code == 422


async def test_a_stranger_sees_404(cast: Cast) -> None:
    made = (await cast.alice.client.post("/v1/topics", json={"key": "news", "name": "News"})).json()
    assert (await cast.charlie.client.get(f"/v1/topics/{made['id']}")).status_code == 404
    assert (await cast.charlie.client.patch(f"/v1/topics/{made['id']}", json={"name": "x"})).status_code == 404


async def test_each_change_is_audited_once(alice: Person) -> None:
    made = (await alice.client.post("/v1/topics", json={"key": "news", "name": "News"})).json()
    for _ in range(2):
        await alice.client.patch(f"/v1/topics/{made['id']}", json={"name": "Other"})
    entries = (await alice.client.get("/v1/audit-entries", params={"subject_kind": "topic"})).json()["items"]
    assert [entry["action"] for entry in entries] == ["topic.created", "topic.changed"]
