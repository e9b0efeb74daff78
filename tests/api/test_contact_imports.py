import asyncio
import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx2 import Response
from sqlalchemy import text

from models.domain.audit import Actor
from models.store import consents
from models.store.consents import NewConsent
from models.store.session import Database
from tests.api.conftest import Cast, Person
from tests.api.organization_schema import set_attribute_schema


async def send(person: Person, content: str | bytes, **options: Any) -> Response:
    body = content if isinstance(content, bytes) else content.encode()
    data = {"options": json.dumps(options)} if options else None
    return await person.client.post("/v1/contact-imports", files={"file": ("people.csv", body, "text/csv")}, data=data)


async def report(person: Person, content: str | bytes, **options: Any) -> dict[str, Any]:
    answer = await send(person, content, **options)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert found["rows"] == found["created"] + found["updated"] + found["unchanged"] + found["refused"]
    return found


def counts(found: dict[str, Any]) -> tuple[int, int, int, int]:
    return found["created"], found["updated"], found["unchanged"], found["refused"]


def refusals(found: dict[str, Any]) -> list[tuple[int, str | None, str]]:
    return [(one["line"], one["column"], one["code"]) for one in found["refusals"]]


async def people(person: Person) -> dict[str, dict[str, Any]]:
    items = (await person.client.get("/v1/contacts", params={"limit": 500})).json()["items"]
    return {contact["email"] or contact["external_id"]: contact for contact in items}


async def test_a_file_creates_then_updates_then_changes_nothing(alice: Person) -> None:
    first = "Email,First Name,Country\na@example.com,Ada,us\nb@example.com,Bo,\n"
    second = "Email,First Name,Country\na@example.com,,DE\nb@example.com,Bo,\nc@example.com,Cy,FR\n"
    assert counts(await report(alice, first)) == (2, 0, 0, 0)
    assert counts(await report(alice, second)) == (1, 1, 1, 0)
    assert counts(await report(alice, second)) == (0, 0, 3, 0)
    found = await people(alice)
    assert (found["a@example.com"]["first_name"], found["a@example.com"]["country"]) == ("Ada", "DE")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_files_as_spreadsheets_write_them_are_read(alice: Person, delimiter: str, encoding: str, newline: str) -> None:
    rows = [["E-mail", "Surname", "Tags"], ["a@example.com", "Müller – Søn", "vip"]]
    content = newline.join(delimiter.join(row) for row in rows) + newline
    found = await report(alice, content.encode(encoding))
    assert (counts(found), found["delimiter"]) == ((1, 0, 0, 0), delimiter)
    assert (await people(alice))["a@example.com"]["last_name"] == "Müller – Søn"


@pytest.mark.parametrize(
    ("written", "named"), [("ascii", "utf-8"), ("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("cp1252", "windows-1252")]
)
async def test_the_report_names_the_encoding_as_the_options_take_it(alice: Person, written: str, named: str) -> None:
    content = f"email,first_name\na@example.com,{'Zoe' if written == 'ascii' else 'Zoë'}\n".encode(written)
    assert (await report(alice, content))["encoding"] == named
    again = await report(alice, content, encoding=named)
    assert (counts(again), again["encoding"]) == ((0, 0, 1, 0), named)


async def test_a_file_in_no_known_encoding_is_told_of_encodings_by_their_names(alice: Person) -> None:
    [error] = (await send(alice, b"email\n\x81\x8d\n")).json()["errors"]
    assert error["message"].startswith("The file is not text in utf-8 or windows-1252; save it as CSV UTF-8, or name its encoding: utf-8,")


async def test_excels_separator_line_is_understood(alice: Person) -> None:
    found = await report(alice, "sep=;\r\nemail;region\r\na@example.com;A,B\r\nbad;x\r\n")
    assert (counts(found), refusals(found)) == ((1, 0, 0, 1), [(4, "email", "not_an_email")])
    assert (await people(alice))["a@example.com"]["region"] == "A,B"


async def test_refused_rows_are_reported_by_line_column_and_reason_and_the_others_are_taken(alice: Person) -> None:
    content = (
        "email,phone,country,timezone,first_name\n"
        'a@example.com,,US,America/New_York,"two\nlines"\n'  # lines 2 and 3
        "\n"
        "no-address,,US,,\n"  # 5
        "b@example.com,123,US,Mars/Base,\n"  # 6
        "c@example.com,(212) 555-0123,US,europe/berlin,ok\n"  # 7
        "d@example.com,,US,,x,surplus\n"  # 8
        "e@example.com,,US,,x,,\n"  # 9: empty cells at the end are nothing
        ',,US,,"x"\n'  # 10
        'f@example.com,,US,,"x"y\n'  # 11
        "g@example.com\n"  # 12: cells left out at the end are empty
    )
    found = await report(alice, content)
    assert counts(found) == (4, 0, 0, 5)
    assert refusals(found) == [
        (5, "email", "not_an_email"),
        (6, "phone", "not_a_phone"),
        (6, "timezone", "unknown_timezone"),
        (8, None, "too_many_columns"),
        (10, None, "no_identity"),
        (11, None, "bad_quotes"),
    ]
    saved = await people(alice)
    assert saved["a@example.com"]["first_name"] == "two\nlines"
    assert (saved["c@example.com"]["phone"], saved["c@example.com"]["timezone"]) == ("+12125550123", "Europe/Berlin")
    assert "no-address" not in json.dumps(found)


async def test_of_several_rows_for_one_contact_the_last_is_taken(alice: Person) -> None:
    await report(alice, "external_id,email\n1,one@example.com\n")
    content = "external_id,email,region\n2,TWO@example.com,a\n2,two@example.com,b\n3,two@example.com,c\n,one@example.com,d\n1,,e\n"
    found = await report(alice, content)
    assert counts(found) == (1, 1, 0, 3)
    assert refusals(found) == [(2, None, "duplicate_in_file"), (3, None, "duplicate_in_file"), (5, None, "duplicate_in_file")]
    saved = await people(alice)
    assert saved["two@example.com"]["external_id"] == "3"
    assert saved["one@example.com"]["region"] == "e"


async def test_an_identity_of_two_contacts_is_refused(alice: Person) -> None:
    await report(alice, "external_id,email\n1,one@example.com\n2,two@example.com\n")
    found = await report(alice, "external_id,email\n1,two@example.com\n9,one@example.com\n")
    assert refusals(found) == [(2, None, "identity_conflict"), (3, None, "identity_conflict")]
    assert found["refused"] == 2


async def test_a_dry_run_reports_and_changes_nothing(alice: Person) -> None:
    found = await report(alice, "email\na@example.com\nbad\n", dry_run=True)
    assert (found["dry_run"], counts(found)) == (True, (1, 0, 0, 1))
    assert await people(alice) == {}
    assert (await alice.client.get(f"/v1/contact-imports/{found['id']}")).json() == found


async def test_columns_are_mapped_as_told(alice: Person, database: Database) -> None:
    await set_attribute_schema(database, alice.organization_id, {"plan": "string", "seats": "integer", "langs": "strings"})
    content = "Kontakt,Paket,attributes.seats,Sprachen,email\na@example.com,pro,3,de|en,ignored\nb@example.com,,x,,\n"
    mapping = {"Kontakt": "email", "Paket": "attributes.plan", "Sprachen": "attributes.langs", "email": None}
    found = await report(alice, content, mapping=mapping)
    assert refusals(found) == [(3, "attributes.seats", "wrong_type")]
    assert found["ignored_columns"] == ["email"]
    assert (await people(alice))["a@example.com"]["attributes"] == {"plan": "pro", "seats": 3, "langs": ["de", "en"]}


async def test_tags_are_added_to_those_there_are(alice: Person) -> None:
    await alice.client.post("/v1/contacts", json={"email": "a@example.com", "tags": ["old"]})
    content = 'email,tags\na@example.com,"New;b ""q"" \\;VIP|old"\n'
    assert counts(await report(alice, content)) == (0, 1, 0, 0)
    assert counts(await report(alice, content)) == (0, 0, 1, 0)
    assert (await people(alice))["a@example.com"]["tags"] == ['b "q" \\', "new", "old", "vip"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"\xef\xbb\xbf \r\n\r\n", "empty_file"),
        (b"email,country\r\n", "no_rows"),
        (b"a@example.com,US\nb@example.com,DE\n", "missing_header"),
        (b"first_name,country\nAda,US\n", "no_identity_column"),
        (b"email,Mail\na@example.com,b@example.com\n", "duplicate_column"),
        (b"email,attributes.nope\na@example.com,1\n", "unknown_attribute"),
        (b'email,region\na@example.com,"open\nb@example.com,x\n', "unclosed_quote"),
        (b'email,region\na@example.com,"' + b"x" * 200_000 + b'"\n', "cell_too_large"),
        (b"email,region\na@example.com," + b"x" * 200_000 + b"\n", "cell_too_large"),
        (b'email,region\na@example.com,"' + b'x""y\n' * 40_000 + b'"\n', "cell_too_large"),
        (b'email,region\na@example.com,"' + b"x" * 200_000 + b"\n", "unclosed_quote"),
        (b'email,region\na@example.com,"open\n' + b"b@example.com,x\n" * 20_000 + b'c@example.com,"x"\n', "unclosed_quote"),
        (b"email,region\na@example.com," + b"x" * 2_000_000 + b"\n", "line_too_long"),
        (b"email\n\x81\x8d\n", "undecodable"),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_as_a_whole(alice: Person, content: bytes, code: str) -> None:
    answer = await send(alice, content)
    assert answer.status_code == 422, answer.text
    assert [error["code"] for error in answer.json()["errors"]] == [code]
    assert (await alice.client.get("/v1/contact-imports")).json()["items"] == []


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
async def test_utf_16_without_its_mark_is_recognised_and_refused(alice: Person, encoding: str) -> None:
    answer = await send(alice, "email,first_name\na@example.com,Zoë\n".encode(encoding))
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["code"]) == (422, "undecodable")
    assert "looks like UTF-16 without a byte order mark; save it as UTF-8 (CSV UTF-8)" in error["message"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("stray", [b"M\xfcller", b"\x81"])
async def test_utf_8_with_a_few_other_bytes_is_refused_by_its_first_bad_line(alice: Person, newline: bytes, stray: bytes) -> None:
    names = ["Zoë".encode(), "Søren".encode(), stray, "Łukasz".encode(), stray]
    rows = [b"email,first_name", *(b"p%d@example.com,%s" % (number, name) for number, name in enumerate(names))]
    answer = await send(alice, newline.join(rows))
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["code"]) == (422, "undecodable")
    assert error["message"].startswith("Line 4 holds bytes that are not UTF-8")
    assert await people(alice) == {}


async def test_windows_1252_with_something_like_utf_8_in_it_is_still_read(alice: Person) -> None:
    found = await report(alice, "email,first_name\na@example.com,Müller\nb@example.com,Ã¼\nc@example.com,Jörg\n".encode("cp1252"))
    assert found["created"] == 3
    assert {contact["first_name"] for contact in (await people(alice)).values()} == {"Müller", "Ã¼", "Jörg"}


async def test_nul_characters_and_huge_cells_refuse_their_row_only(alice: Person) -> None:
    found = await report(
        alice, b"email,region\na@example.com,x\x00y\nb@example.com," + b"z" * 5_000 + b"\nc\x00@example.com,x\nd@example.com,x\n"
    )
    assert refusals(found) == [(2, "region", "not_storable"), (3, "region", "too_long"), (4, "email", "not_an_email")]
    assert found["created"] == 1


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"delimiter": "x"}, "options.delimiter"),
        ({"unknown": 1}, "options.unknown"),
        ({"mapping": {"Nope": "email"}}, "options.mapping.Nope"),
        ({"mapping": {"email": "nope"}}, "options.mapping.email"),
        ({"default_country": "QQ"}, "options.default_country"),
        ({"consent": {"topic": "news", "channel": "email", "method": "form"}}, "options.consent.source"),
    ],
)
async def test_options_that_make_no_sense_are_refused_by_path(alice: Person, options: dict[str, Any], path: str) -> None:
    answer = await send(alice, "email\na@example.com\n", **options)
    assert answer.status_code == 422
    assert path in [error["path"] for error in answer.json()["errors"]]


CONSENT = {"topic": "news", "channel": "email", "method": "form", "source": "https://example.com/old-form", "date": "2026-01-05"}


async def consents_of(person: Person, email: str) -> list[str]:
    contact = (await people(person))[email]
    items = (await person.client.get(f"/v1/contacts/{contact['id']}/consents")).json()["items"]
    return [line["status"] for line in items]


async def test_an_import_by_itself_grants_nothing(alice: Person) -> None:
    await alice.client.post("/v1/topics", json={"key": "news", "name": "News"})
    assert (await report(alice, "email\na@example.com\n"))["consent"] is None
    assert await consents_of(alice, "a@example.com") == []


async def test_an_import_grants_the_consent_it_states_once_and_revives_nobody(alice: Person) -> None:
    topic = (await alice.client.post("/v1/topics", json={"key": "news", "name": "News"})).json()
    gone = (await alice.client.post("/v1/contacts", json={"email": "gone@example.com"})).json()
    line = {"contact_id": gone["id"], "topic_id": topic["id"], "channel": "email", "method": "form", "source": "x"}
    before = (datetime.now(UTC) - timedelta(days=400)).isoformat()
    for status in ("granted", "withdrawn"):
        answer = await alice.client.post("/v1/consents", json=line | {"status": status, "occurred_at": before})
        assert answer.status_code == 201
    await alice.client.post("/v1/suppressions", json={"address": "blocked@example.com", "channel": "email", "reason": "complained"})
    content = "external_id,email\n1,new@example.com\n2,gone@example.com\n3,Blocked@Example.com\n4,\n"
    first = await report(alice, content, consent=CONSENT)
    assert first["consent"] == {"granted": 1, "unchanged": 0, "kept_withdrawn": 2, "without_address": 1}
    again = await report(alice, content, consent=CONSENT)
    assert again["consent"] == {"granted": 0, "unchanged": 1, "kept_withdrawn": 2, "without_address": 1}
    assert await consents_of(alice, "new@example.com") == ["granted"]
    assert await consents_of(alice, "gone@example.com") == ["withdrawn"]
    assert await consents_of(alice, "Blocked@example.com") == []


async def test_an_import_does_not_revive_who_is_leaving_at_this_moment(alice: Person, database: Database) -> None:
    topic = (await alice.client.post("/v1/topics", json={"key": "news", "name": "News"})).json()["id"]
    contact = UUID((await alice.client.post("/v1/contacts", json={"email": "gone@example.com"})).json()["id"])
    before = datetime(2026, 1, 4, tzinfo=UTC)
    source, actor = "unsubscribe_link", Actor("recipient", contact)
    left = NewConsent(contact, UUID(topic), "email", "withdrawn", "one_click", source, {}, actor, before)
    async with database.organization(alice.organization_id) as leaving:
        await consents.record(leaving, [left])
        importing = asyncio.ensure_future(report(alice, "email,first_name\ngone@example.com,Ann\n", consent=CONSENT))
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))")
        async with asyncio.timeout(60):
            while not importing.done() and not await leaving.scalar(waiting):
                await asyncio.sleep(0.01)
    assert (await importing)["consent"] == {"granted": 0, "unchanged": 0, "kept_withdrawn": 1, "without_address": 0}
    assert await consents_of(alice, "gone@example.com") == ["withdrawn"]


async def test_stated_consent_needs_a_topic_and_a_past_date(alice: Person) -> None:
    unknown = await send(alice, "email\na@example.com\n", consent=CONSENT)
    await alice.client.post("/v1/topics", json={"key": "news", "name": "News"})
    future = await send(alice, "email\na@example.com\n", consent=CONSENT | {"date": "2199-01-01"})
    assert [answer.json()["errors"][0]["path"] for answer in (unknown, future)] == ["options.consent.topic", "options.consent.date"]
    assert await people(alice) == {}


async def test_concurrent_imports_and_upserts_of_the_same_people_agree(alice: Person) -> None:
    content = "email\n" + "".join(f"p{number}@example.com\n" for number in range(300))
    upserts = [alice.client.post("/v1/contacts", json={"email": f"P{number}@example.com"}) for number in range(0, 300, 30)]
    answers = await asyncio.gather(send(alice, content), send(alice, content), *upserts)
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len(await people(alice)) == 300


async def test_more_than_one_chunk_keeps_its_line_numbers(alice: Person) -> None:
    rows = [f"p{number}@example.com" if number % 1000 else "bad" for number in range(1, 9_001)]
    found = await report(alice, "email\n" + "\n".join(rows) + "\n")
    assert counts(found) == (8_991, 0, 0, 9)
    assert [line for line, _, _ in refusals(found)] == [1_001 + 1_000 * number for number in range(9)]


async def test_the_report_lists_a_thousand_refusals_and_counts_all(alice: Person) -> None:
    found = await report(alice, "email\n" + "bad\n" * 1_500)
    assert (found["refused"], len(found["refusals"])) == (1_500, 1_000)


async def test_the_audit_entry_counts_and_names_nobody(alice: Person) -> None:
    await report(alice, "email,first_name\nada@example.com,Ada\n")
    entries = (await alice.client.get("/v1/audit-entries", params={"subject_kind": "contact_import"})).json()["items"]
    assert [(entry["action"], entry["details"]["created"]) for entry in entries] == [("contact_import.completed", 1)]
    assert "ada@" not in json.dumps(entries).lower()


async def test_a_stranger_and_a_viewer_see_no_report(cast: Cast) -> None:
    found = await report(cast.alice, "email\na@example.com\n")
    assert (await cast.charlie.client.get(f"/v1/contact-imports/{found['id']}")).status_code == 404
    assert (await cast.charlie.client.get("/v1/contact-imports")).json()["items"] == []
    assert (await send(cast.bob, "email\na@example.com\n")).status_code == 403


async def test_a_file_written_by_pythons_csv_module_comes_in_exactly(alice: Person) -> None:
    values = ['say "hi"', "semi;colon", "tab\there", "comma, and\r\nbreak", "O'Brien", "'quoted'"]
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["email", "first_name"], *([f"p{number}@example.com", value] for number, value in enumerate(values))])
    await report(alice, buffer.getvalue())
    saved = await people(alice)
    assert [saved[f"p{number}@example.com"]["first_name"] for number in range(len(values))] == values
