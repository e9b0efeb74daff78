"""The demo's people, its oracle, and the whole demo against an installation."""

import asyncio
import csv
import dataclasses
import io
import json
import re
import sys
from collections import Counter
from typing import Any, cast
from uuid import UUID

import pytest
from starlette.routing import Route

from api.app import create_app
from api.dependencies import Services
from deploy.demo.founding import Founded
from deploy.demo.journey import ATTRIBUTES, MAILS, definition
from deploy.demo.make_contacts import CONTACTS, SEED, Chance, make_contacts
from deploy.demo.oracle import Comparison, Expectation, Mail, Refusal, compare, expect
from deploy.demo.outcome import Outcome
from deploy.demo.people import FILE, TOPICS, Person, read_file
from deploy.demo.scene import Scene
from deploy.demo.summary import places
from deploy.environment import ROOT
from deploy.trial.installation import private_installation
from models.addresses import normalize_email, normalize_phone, normalize_timezone
from models.domain.audit_verification import Verification
from models.domain.contact import normalize_country, normalize_locale, normalize_tags, read_attribute
from models.domain.journey.check import check
from models.domain.journey.facts import ConnectionFact, Facts, TemplateFact, TopicFact
from models.rendering import analyze, message_context, render_email
from models.tables.base import new_id

RESERVED_DOMAIN = re.compile(r"@(.+\.)?example\.(com|org|net)$")
# North America 555-01xx; Ofcom, BNetzA, Arcep, PTS and ACMA: ranges that are kept for films and books.
RESERVED_NUMBER = re.compile(
    r"\+1\d{3}55501\d\d|\+442079460\d{3}|\+441314960\d{3}|\+493023125\d{3}|\+498999998\d{3}|\+33199000\d{3}|\+33261910\d{3}"
    r"|\+468465004\d\d|\+61[28]55500\d{3}|\+61270100\d{3}"
)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- the people -----------------------------------------------------------------------------------------------------


def test_the_committed_file_is_what_the_script_makes(rows: list[dict[str, str]]) -> None:
    assert rows == make_contacts(Chance(SEED))
    assert len(rows) == CONTACTS == 1_000


def test_nobody_in_the_file_can_be_real(rows: list[dict[str, str]]) -> None:
    for row in rows:
        if row["email"]:
            assert RESERVED_DOMAIN.search(normalize_email(row["email"]))
        if row["phone"]:
            assert RESERVED_NUMBER.fullmatch(normalize_phone(row["phone"], row["country"].upper() or None)), row["phone"]


def test_every_cell_is_valid(rows: list[dict[str, str]]) -> None:
    for row in rows:
        for column, normalize in (("timezone", normalize_timezone), ("locale", normalize_locale), ("country", normalize_country)):
            if row[column]:
                normalize(row[column])  # raises when it is not valid
        for name, kind in ATTRIBUTES.items():
            if row[name]:
                read_attribute(row[name], kind)  # type: ignore[arg-type]  # one of the attribute types
        normalize_tags(row["tags"].split(";"))


def test_no_two_people_share_an_address_or_an_id(rows: list[dict[str, str]]) -> None:
    addresses = [row["email"].strip().lower() for row in rows if row["email"]]
    assert len(set(addresses)) == len(addresses)
    assert len({row["external_id"] for row in rows}) == len(rows)


def test_the_file_is_as_messy_as_real_ones(rows: list[dict[str, str]]) -> None:
    for column in ("email", "first_name", "last_name", "locale", "timezone", "country", "phone", "plan", "tags"):
        assert 20 < sum(not row[column] for row in rows) < 900, column
    assert len({row["timezone"].strip().lower() for row in rows}) > 25
    assert len({row["locale"].lower() for row in rows}) > 25
    assert sum(row["email"] != row["email"].lower() for row in rows) > 100
    assert sum(row["email"] != row["email"].strip() for row in rows) > 20
    assert any("," in row["last_name"] for row in rows) and any("\n" in row["note"] for row in rows)
    assert any('"' in row["company"] for row in rows)
    assert sum(not row["first_name"].isascii() for row in rows) > 100
    assert {row["opted_out"] for row in rows} == {"", "unsubscribed", "bounced", "complained"}


def test_what_people_said_is_dated_in_order(rows: list[dict[str, str]]) -> None:
    _, people = read_file(CONTACTS)
    for person in people:
        for topic in TOPICS:
            lines = [statement for statement in person.statements() if statement.topic == topic]
            assert [line.status for line in lines] == ["granted", "withdrawn", "granted"][: len(lines)]
            assert [line.at for line in lines] == sorted(line.at for line in lines) and all(line.at < "2026" for line in lines)
            assert len(lines) == {"": 0, "yes": 1, "left": 2, "back": 3}[person.answer(topic)]
        assert bool(person.method and person.source) == any(answer for _, answer in person.said)


def test_a_smaller_demo_takes_the_first_people_of_the_file(rows: list[dict[str, str]]) -> None:
    content, people = read_file(7)
    assert list(csv.DictReader(io.StringIO(content.decode(), newline=""))) == rows[:7]
    assert [person.external_id for person in people] == [row["external_id"] for row in rows[:7]]


@pytest.mark.parametrize("count", [60, 200, 1_000])
def test_every_kind_of_outcome_occurs_among_the_first_people(count: int) -> None:
    expectation = expect(read_file(count)[1])
    assert set(expectation.mails.values()) == set(MAILS)
    assert {refusal.reason for refusal in expectation.refusals} == {"no_address", "suppressed", "no_consent", "consent_withdrawn"}
    assert len(expectation.mails) + len(expectation.refusals) == 3 * count  # every person comes to three mails


# --- the oracle -----------------------------------------------------------------------------------------------------


def person(**fields: Any) -> Person:
    said = {topic: fields.pop(topic, "yes") for topic in TOPICS}
    plain = Person(
        "p-1", "ada@example.com", "Ada@Example.com", "", "Ada", "", "free", "", tuple(said.items()), ("a", "b", "c"), "form", "x"
    )
    return dataclasses.replace(plain, **fields)


@pytest.mark.parametrize(
    ("fields", "sent", "refused"),
    [
        ({}, {"welcome", "tips", "invitation"}, {}),
        ({"plan": "team"}, {"welcome", "whats_new", "invitation"}, {}),
        ({"plan": ""}, {"welcome", "tips", "invitation"}, {}),
        ({"newsletter": ""}, {"invitation"}, {"welcome": "no_consent", "tips": "no_consent"}),
        ({"newsletter": "left", "plan": "business"}, {"whats_new", "invitation"}, {"welcome": "consent_withdrawn"}),
        ({"events": "back"}, {"welcome", "tips", "invitation"}, {}),
        ({"opted_out": "bounced"}, set(), dict.fromkeys(("welcome", "tips", "invitation"), "suppressed")),
        ({"email": "", "opted_out": "bounced"}, set(), dict.fromkeys(("welcome", "tips", "invitation"), "no_address")),
    ],
)
def test_the_oracle_knows_who_gets_what(fields: dict[str, Any], sent: set[str], refused: dict[str, str]) -> None:
    expectation = expect([person(**fields)])
    assert set(expectation.mails.values()) == sent
    assert {refusal.step: refusal.reason for refusal in expectation.refusals} == refused


EXPECTATION = Expectation(
    {Mail("a@example.com", "Welcome, A"): "welcome", Mail("b@example.com", "Welcome, B"): "welcome"},
    frozenset({Refusal("p-3", "welcome", "suppressed")}),
)
RIGHT = [Mail("a@example.com", "Welcome, A"), Mail("b@example.com", "Welcome, B")]
REFUSED = [Refusal("p-3", "welcome", "suppressed")]


def test_what_was_expected_holds() -> None:
    found = compare(EXPECTATION, RIGHT, REFUSED)
    assert found.holds and found.messages == found.expected == 2 and found.by_step == {"welcome": 2}


@pytest.mark.parametrize(
    ("inbox", "refused", "fault"),
    [
        (RIGHT[:1], REFUSED, "missing"),
        ([*RIGHT, RIGHT[0]], REFUSED, "duplicates"),
        ([*RIGHT, Mail("c@example.com", "Welcome, C")], REFUSED, "unexpected"),
        ([*RIGHT, Mail("a@example.com", "Welcome, B")], REFUSED, "unexpected"),
        (RIGHT, [], "refusals_missing"),
        (RIGHT, [*REFUSED, Refusal("p-1", "welcome", "no_consent")], "refusals_unexpected"),
    ],
)
def test_every_deviation_is_found(inbox: list[Mail], refused: list[Refusal], fault: str) -> None:
    found = compare(EXPECTATION, inbox, refused)
    assert not found.holds
    assert {name: count for name, count in vars(found).items() if count and name in FAULTS} == {fault: 1}


FAULTS = ("missing", "duplicates", "unexpected", "refusals_missing", "refusals_unexpected")
GOOD = Outcome(
    contacts=2,
    comparison=Comparison(2, 2, 0, 0, 0, 0, 0, {"welcome": 2}),
    refused={"suppressed": 1},
    refused_by_timeline=Counter(suppressed=1),
    runs={"completed": 2},
    audience=2,
    audit=Verification(True, 9, (), None, None, True, 9, "00"),
    travellers=2,
    example=(),
)


def test_a_good_outcome_holds() -> None:
    assert GOOD.holds


@pytest.mark.parametrize(
    "flaw",
    [
        {"comparison": dataclasses.replace(GOOD.comparison, missing=1)},
        {"refused": {"suppressed": 2}},
        {"runs": {"completed": 1}},
        {"runs": {"completed": 1, "needs_attention": 1}},
        {"audience": 3},
        {"travellers": 1},
        {"audit": dataclasses.replace(GOOD.audit, ok=False)},
    ],
)
def test_an_outcome_with_one_flaw_does_not_hold(flaw: dict[str, Any]) -> None:
    assert not dataclasses.replace(GOOD, **flaw).holds


# --- the journey ----------------------------------------------------------------------------------------------------


def test_the_addresses_shown_at_the_end_are_served() -> None:
    founded = Founded(new_id(), "demo-1", "olivia@example.com", "password", "ls_key")
    installation = {"api": "http://127.0.0.1:8000", "console": "http://127.0.0.1:8000", "temporal_ui": None}
    shown = " ".join(value for _, value in places(founded, Scene("campaign", "journey", {}), installation))
    app = create_app(cast("Services", None))  # routes touch services only when they are called
    served = [route.path for route in app.routes if isinstance(route, Route)]
    described = re.findall(r"described at http://127\.0\.0\.1:8000(/\S+) ", shown)
    assert described and set(described) <= set(served)


def test_the_journey_can_be_published() -> None:
    topics = {key: new_id() for key in TOPICS}
    templates = {step: new_id() for step in MAILS}
    facts = Facts(
        templates={id: _fact(step) for step, id in templates.items()},
        topics={id: TopicFact(key) for key, id in topics.items()},
        connections={new_id(): ConnectionFact("email", is_default=True)},
        attributes={name: {"type": kind} for name, kind in ATTRIBUTES.items()},
    )
    draft = definition({step: str(id) for step, id in templates.items()}, {key: str(id) for key, id in topics.items()})
    assert check(draft, facts) == []


def _fact(step: str) -> TemplateFact:
    content = MAILS[step].template(step)
    used = [analyze(content[part], part) for part in ("subject", "html")]
    assert not any(analysis.problems for analysis in used)
    version = new_id()
    return TemplateFact("email", False, version, {version: {name for analysis in used for name in analysis.variables}})


def test_every_subject_is_the_one_that_the_oracle_expects(rows: list[dict[str, str]]) -> None:
    _, people = read_file(CONTACTS)
    for row, one in zip(rows, people, strict=True):
        consenting = dataclasses.replace(one, email="x@example.com", opted_out="", said=tuple((topic, "yes") for topic in TOPICS))
        for mail, step in expect([consenting]).mails.items():
            content = MAILS[step].template(step)
            contact = {**row, "attributes": {"plan": row["plan"]}, "tags": []}
            rendered = render_email(content["subject"], content["html"], "", message_context(contact, {}, "Fernhill", "https://u"))
            assert rendered.subject == mail.subject
            assert "https://u" in rendered.html


# --- the whole ------------------------------------------------------------------------------------------------------


async def test_the_demo_mails_everybody_who_agreed_once_and_refuses_the_others_with_a_reason() -> None:
    async with private_installation() as installation:
        code, output = await _demo("--state", str(installation.state.path), "--contacts", "200", "--json")
    found = json.loads(output)
    expectation = expect(read_file(200)[1])
    assert {name: found[name] for name in FAULTS} == dict.fromkeys(FAULTS, 0)
    assert found["messages"] == found["expected"] == len(expectation.mails)
    assert found["messages_by_step"] == Counter(expectation.mails.values())
    assert found["refused"] == Counter(refusal.reason for refusal in expectation.refusals)
    assert found["runs"] == {"completed": 200} and found["contacts"] == 200
    assert found["ok"] and found["conserved"] and found["audit_ok"] and found["audit_entries"] > 400
    assert UUID(found["campaign_id"]) and found["organization"].startswith("demo-")
    assert code == 0


async def test_without_an_installation_the_demo_says_how_to_start_one(tmp_path: Any) -> None:
    code, output = await _demo("--state", str(tmp_path / "nothing"))
    assert code == 2 and "make up" in output


@pytest.mark.parametrize("count", ["0", "1001", "many", "-3"])
async def test_an_impossible_number_of_contacts_is_refused(count: str) -> None:
    code, output = await _demo("--contacts", count)
    assert code == 2 and "from 1 to 1000" in output


async def _demo(*arguments: str) -> tuple[int, str]:
    """Exit code, and standard output or, when that is empty, standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "leadstats.py"),
        "demo",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, (output or errors).decode()
