import asyncio
import threading
from typing import Any
from uuid import uuid4

import pytest

from api.commands import templates as commands
from models.rendering import Rendered
from tests.api.conftest import Person
from tests.api.conftest import temporal as temporal  # connects to nothing

MAIL = {
    "name": "Welcome",
    "channel": "email",
    "subject": "Hi {{ contact.first_name }}",
    "html": "<p>Plan: {{ contact.attributes.plan }}</p><a href='{{ unsubscribe_url }}'>Leave</a>",
}


async def contact(person: Person, **values: object) -> str:
    answer = await person.client.post("/v1/contacts", json={"email": f"{uuid4().hex}@example.com", **values})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_a_template_is_kept_with_its_variables_and_a_text_part(alice: Person) -> None:
    created = await alice.client.post("/v1/templates", json=MAIL)
    assert created.status_code == 201, created.text
    version = created.json()["version"]
    assert version["number"] == 1
    assert version["variables"] == ["contact.attributes.plan", "contact.first_name", "unsubscribe_url"]
    assert version["text"] == "Plan: {{ contact.attributes.plan }}\n\nLeave ({{ unsubscribe_url }})"
    read = await alice.client.get(f"/v1/templates/{created.json()['id']}")
    assert read.json() == created.json()


async def test_a_change_is_a_further_version_and_the_first_stays(alice: Person) -> None:
    template = (await alice.client.post("/v1/templates", json=MAIL)).json()
    path = f"/v1/templates/{template['id']}"
    added = await alice.client.post(f"{path}/versions", json={"subject": "New", "text": "Hello"})
    assert (added.status_code, added.json()["number"]) == (201, 2)
    listed = (await alice.client.get(f"{path}/versions")).json()["items"]
    assert [version["subject"] for version in listed] == [MAIL["subject"], "New"]
    assert (await alice.client.get(f"{path}/versions/1")).json() == template["version"]
    assert (await alice.client.get("/v1/templates")).json()["items"][0]["newest_version"] == 2


async def test_bad_liquid_is_refused_with_part_line_and_column(alice: Person) -> None:
    answer = await alice.client.post("/v1/templates", json={**MAIL, "subject": "{{ x.y }}", "html": "ok\n  {{ contact.email | shout }}"})
    assert answer.status_code == 422
    problems = {(error["path"], error["code"]): error["message"] for error in answer.json()["errors"]}
    assert problems[("subject", "unknown_variable")].startswith("line 1, column 4")
    assert problems[("html", "unknown_filter")].startswith("line 2, column 22")
    assert (await alice.client.get("/v1/templates")).json()["items"] == []


async def test_a_mail_needs_a_subject_and_an_sms_has_none(alice: Person) -> None:
    for body, path in (
        ({**MAIL, "subject": " "}, "subject"),
        ({"name": "T", "channel": "email", "subject": "S"}, "html"),
        ({"name": "T", "channel": "sms", "text": "Hi", "html": "<p>"}, "html"),
        ({"name": "T", "channel": "sms"}, "text"),
    ):
        answer = await alice.client.post("/v1/templates", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, path)


async def test_a_name_is_taken_once(alice: Person) -> None:
    await alice.client.post("/v1/templates", json=MAIL)
    assert (await alice.client.post("/v1/templates", json=MAIL)).status_code == 409


async def test_a_preview_shows_what_the_contact_would_get(alice: Person) -> None:
    template = (await alice.client.post("/v1/templates", json={**MAIL, "html": "{{ contact.first_name }} {{ run.order }}"})).json()
    ann = await contact(alice, first_name="<Ann>")
    shown = (await alice.client.post(f"/v1/templates/{template['id']}/previews", json={"contact_id": ann, "run": {"order": 17}})).json()
    assert shown == {"version": 1, "subject": "Hi <Ann>", "html": "&lt;Ann&gt; 17", "text": "<Ann> 17", "problems": []}


async def test_while_a_preview_is_rendered_others_are_answered(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (await alice.client.post("/v1/templates", json=MAIL)).json()
    ann = await contact(alice, first_name="Ann")
    loop, begun, answered = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    answered_meanwhile: list[bool] = []

    def render_slowly(*_: Any) -> Rendered:
        loop.call_soon_threadsafe(begun.set)
        answered_meanwhile.append(answered.wait(60))
        return Rendered("", "", "")

    monkeypatch.setattr(commands, "render_email", render_slowly)
    preview = asyncio.create_task(alice.client.post(f"/v1/templates/{template['id']}/previews", json={"contact_id": ann}))
    await begun.wait()
    assert (await alice.client.get("/v1/organization")).status_code == 200
    answered.set()
    assert ((await preview).status_code, answered_meanwhile) == (200, [True])


@pytest.mark.parametrize(
    ("html", "message"),
    [
        ("{{ contact.email | shout }}", "line 1, column 20: there is no filter shout."),
        ("<p>{% if contact.email %}</p><p title='{% endif %}'>a</p>", "The text made from this HTML is wrong"),
    ],
)
async def test_only_a_part_that_was_sent_is_found_fault_with(alice: Person, html: str, message: str) -> None:
    """The text that is made from the HTML cannot be mended where nobody wrote it."""
    answer = await alice.client.post("/v1/templates", json={**MAIL, "html": html})
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["path"]) == (422, "html")
    assert error["message"].startswith(message)


async def test_a_preview_names_what_is_missing(alice: Person) -> None:
    template = (await alice.client.post("/v1/templates", json=MAIL)).json()
    ann = await contact(alice, first_name="Ann")
    shown = (await alice.client.post(f"/v1/templates/{template['id']}/previews", json={"contact_id": ann})).json()
    assert shown["html"] is None
    assert (shown["problems"][0]["path"], shown["problems"][0]["code"]) == ("html", "missing_value")
    assert "contact.attributes.plan" in shown["problems"][0]["message"]


async def test_a_viewer_cannot_print_a_contact_with_a_preview(alice: Person, bob: Person) -> None:
    template = (await alice.client.post("/v1/templates", json=MAIL)).json()
    ann = await contact(alice, first_name="Ann")
    refused = await bob.client.post(f"/v1/templates/{template['id']}/previews", json={"contact_id": ann})
    assert refused.status_code == 403
    assert "contacts.read" in refused.json()["detail"]


async def test_archiving_is_taken_back(alice: Person) -> None:
    path = f"/v1/templates/{(await alice.client.post('/v1/templates', json=MAIL)).json()['id']}"
    assert (await alice.client.patch(path, json={"archived": True})).json()["archived_at"]
    assert (await alice.client.patch(path, json={"archived": False, "name": "Other"})).json()["archived_at"] is None


async def test_a_change_to_what_is_so_already_is_not_on_record_and_null_is_refused(alice: Person) -> None:
    path = f"/v1/templates/{(await alice.client.post('/v1/templates', json=MAIL)).json()['id']}"
    for body in ({"name": "Other"}, {"name": "Other"}, {"archived": False}, {}):
        assert (await alice.client.patch(path, json=body)).status_code == 200
    entries = (await alice.client.get("/v1/audit-entries", params={"action": "template.changed"})).json()["items"]
    assert [entry["details"] for entry in entries] == [{"fields": ["name"]}]
    for field in ("name", "archived"):
        refused = await alice.client.patch(path, json={field: None})
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, field)


async def test_a_stranger_sees_nothing_and_a_viewer_changes_nothing(alice: Person, bob: Person, charlie: Person) -> None:
    template = (await alice.client.post("/v1/templates", json=MAIL)).json()
    path = f"/v1/templates/{template['id']}"
    theirs = await contact(charlie)
    assert (await charlie.client.get(path)).status_code == 404
    assert (await charlie.client.get(f"{path}/versions")).status_code == 404
    assert (await charlie.client.post(f"{path}/versions", json={"subject": "a", "text": "b"})).status_code == 404
    assert (await alice.client.post(f"{path}/previews", json={"contact_id": theirs})).status_code == 404
    assert (await bob.client.get(path)).status_code == 200
    assert (await bob.client.post("/v1/templates", json=MAIL)).status_code == 403
