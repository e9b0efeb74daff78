"""`leadstats simulate` against the application in this process, and its exit codes."""

import argparse
import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from httpx2 import ASGITransport

from deploy import simulate_command
from deploy.demo.api import PublicApi
from deploy.postgres import free_port
from deploy.simulate_command import Unusable
from deploy.trial.api import Refused
from models.store.session import Database
from tests.api.conftest import Person, alice, app, cast, password_hash, services
from tests.api.rest import acme
from tests.api.rest.fake_temporal import FakeTemporal

__all__ = ["alice", "app", "cast", "password_hash", "services"]  # fixtures
START = "2026-03-02T09:00:00Z"
WELCOMED = {"messages": [{"step": "welcome", "subject": "Hello"}], "end": {"phase": "completed"}}
Case = dict[str, Any]
Command = Callable[..., Coroutine[Any, Any, int]]


@pytest.fixture
def temporal() -> FakeTemporal:
    return FakeTemporal()


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    simulate_command.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest_asyncio.fixture(loop_scope="session")
async def command(alice: Person, app: FastAPI, database: Database) -> Command:
    """Speaks as Alice about her journey `Welcome`."""
    await acme.publish(alice, await acme.surround(database, alice))

    async def play(*arguments: str) -> int:
        api = PublicApi("http://test", alice.api_key, transport=ASGITransport(app=app))
        return await simulate_command.play(parsed("--journey", "Welcome", *arguments), api)

    return play


def case(expected: Any, name: str = "is welcomed") -> Case:
    return {"name": name, "start": START, "given": {"contact": {"consents": [{"topic": "news"}]}}, "expected": expected}


def write(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return str(path)


async def add(person: Person, document: Case) -> str:
    [journey] = (await person.client.get("/v1/journeys")).json()["items"]
    assert (await person.client.post(f"/v1/journeys/{journey['id']}/cases", json=document)).status_code == 201
    return str(journey["id"])


async def test_an_invented_contact_is_told_in_sentences(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contacts = write(tmp_path / "who.json", [{"consents": [{"topic": "news"}]}])
    script = write(tmp_path / "script.json", [{"after": "P1D", "consent": {"topic": "news", "status": "withdrawn"}}])
    assert await command("--contacts", contacts, "--script", script, "--start", START) == 0
    told = capsys.readouterr().out
    assert '2026-03-02 09:00:00  Sent "welcome": the provider accepted the message' in told
    assert "to someone@example.com: Hello" in told and "1 contacts, 1 messages" in told


async def test_the_answer_is_given_as_json(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command("--sample", "3", "--version", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == 1 and found["summary"]["contacts"] == 1


async def test_cases_that_pass_give_0_and_one_that_fails_gives_1(
    command: Command, alice: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Unusable, match="nothing was tested"):
        await command("--cases")
    await add(alice, case(WELCOMED))
    assert await command("--cases") == 0
    await add(alice, case({"messages": []}, "gets nothing"))
    assert await command("--cases") == 1
    told = capsys.readouterr().out
    assert "passed  is welcomed" in told and "FAILED  gets nothing" in told and "1 passed, 1 failed" in told
    assert "messages[0]: No message was expected here, but welcome sent one." in told


async def test_cases_come_from_a_file_or_an_exported_journey(command: Command, alice: Person, tmp_path: Path) -> None:
    assert await command("--cases", write(tmp_path / "one.json", case(WELCOMED))) == 0
    assert await command("--cases", write(tmp_path / "list.json", [case(WELCOMED), case({"messages": []}, "no")])) == 1
    journey = await add(alice, case(WELCOMED))
    exported = (await alice.client.get(f"/v1/journeys/{journey}/export")).json()
    assert await command("--cases", write(tmp_path / "export.json", exported)) == 0


async def test_what_makes_no_sense_is_refused(command: Command, tmp_path: Path) -> None:
    for arguments in ((), ("--segment", "Trial"), ("--sample", "1", "--segment", "Trial"), ("--cases", write(tmp_path / "x.json", {}))):
        with pytest.raises(Unusable):
            await command(*arguments)


@pytest.mark.parametrize("more", [("--sample", "3"), ("--start", START), ("--contacts", "who.json"), ("--until", "P1D")])
async def test_what_a_case_says_itself_cannot_be_said_beside_it(command: Command, more: tuple[str, str]) -> None:
    with pytest.raises(Unusable, match=more[0]):
        await command("--cases", *more)


async def test_what_the_api_refuses_is_told_in_plain_text_and_gives_2(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contacts = write(tmp_path / "who.json", [{"timezone": "Mars/Base"}, {"consents": [{"topic": "gossip"}]}])
    with pytest.raises(Refused) as refused:
        await command("--contacts", contacts)
    title = f"422 {HTTPStatus(422).phrase}"
    first, *others = str(refused.value).splitlines()
    assert first.startswith("POST /v1/journeys/") and first.endswith(f"/simulations: {title}")
    assert [line.split(": ", 1)[0] for line in others] == ["  contacts[0].timezone", "  contacts[1].consents[0].topic"]
    assert others[1].endswith("There is no topic with the key 'gossip'; there is news.")
    with pytest.raises(Refused, match=re.escape(f"{title}: The request breaks a rule; see errors.\n  start: ")):
        await command("--sample", "1", "--start", "yesterday")

    async def play(*_: Any) -> int:
        raise refused.value

    monkeypatch.setattr(simulate_command, "play", play)
    asked = parsed("--journey", "Welcome", "--address", "http://test", "--key-file", write(tmp_path / "key", "ls_x"))
    assert await asyncio.to_thread(simulate_command.run, asked) == 2
    told = capsys.readouterr().err
    assert told == f"leadstats simulate: {refused.value}\n" and "{" not in told


async def test_an_installation_that_does_not_answer_gives_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(simulate_command, "PATIENCE", 0.1)
    monkeypatch.setenv(simulate_command.KEY, "ls_x")
    asked = parsed("--journey", "Welcome", "--cases", "--address", f"http://127.0.0.1:{free_port()}")
    assert await asyncio.to_thread(simulate_command.run, asked) == 2
    monkeypatch.delenv(simulate_command.KEY)
    assert await asyncio.to_thread(simulate_command.run, asked) == 2
    assert await asyncio.to_thread(simulate_command.run, parsed("--journey", "Welcome", "--cases", "--state", str(tmp_path))) == 2


@pytest.mark.parametrize("errors", ["[1, null]", '["busy"]', '[{"reason": "busy"}]', "[]"])
def test_a_refusal_that_is_not_ours_is_told_as_far_as_it_goes(errors: str) -> None:
    refused = Refused("POST", "/v1/x", 502, f'{{"title": "Bad gateway", "detail": "Busy", "errors": {errors}}}')
    assert str(refused) == "POST /v1/x: 502 Bad gateway: Busy"
