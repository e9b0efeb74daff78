import asyncio
import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.contracts.sending import MAXIMUM_TRIES
from activities.contracts.steps import StepVisit
from activities.effects import call_webhook, effect
from models.domain.journey.operations import MOST_VARIABLES, VARIABLES_BYTES
from models.settings import Settings
from models.store import effects
from models.store.session import Database
from models.webhook_signature import signed_headers, webhook_secret
from tests.activities.effects.world import EffectWorld, said
from tests.activities.world import NOON, Crash
from tests.receiver import Received, Receiver, answering, receiving

SAVE = {
    "order_id": {"path": "order.id", "type": "string"},
    "total": {"path": "order.lines.0.total", "type": "number"},
    "count": {"path": "order.count", "type": "integer"},
    "paid": {"path": "paid", "type": "boolean"},
}
ORDER = {"order": {"id": "A-7", "count": 2, "lines": [{"total": 9.5}]}, "paid": True}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
async def world(database: Database, settings: Settings, receiver: Receiver) -> EffectWorld:
    call = {"kind": "call_webhook", "url": receiver.url}
    body = {"who": "{{ contact.first_name }}", "order": "{{ run.order }}", "deep": [{"plan": "{{ contact.attributes.plan }}"}], "n": 1}
    allowing = settings.model_copy(update={"private_destinations": receiver.private})
    return await EffectWorld(database, allowing).found(
        plain=call,
        telling={**call, "body": body, "headers": {"Authorization": "Bearer t"}},
        saving={**call, "save": SAVE},
        forgiving={**call, "on_failure": "path"},
        inside={**call, "url": "http://169.254.169.254/latest"},
        away={**call, "url": "http://nowhere.invalid/"},
        hasty={**call, "timeout": "PT1S"},
    )


# --- what is said -----------------------------------------------------------------------------------------------------


async def test_by_default_the_body_holds_ids_only(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    (answer,) = await world.perform([run], "plain")
    assert said([answer]) == [("done", None)]
    assert answer.details == {"status": 200}
    assert receiver.received[0].headers["content-type"] == "application/json"
    assert receiver.received[0].document == {
        "contact_id": str(world.contacts[run]),
        "run_id": str(run),
        "journey_id": str(world.journey_id),
        "version_id": str(world.version_id),
        "step_id": "plain",
        "visit": 1,
    }
    assert await world.actions("effect.") == ["effect.done"]


async def test_strings_of_a_body_are_printed_for_the_contact(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact(first_name='Zoë "Z" <b>', attributes={"plan": "gold"})
    await world.variables(run, order="o-1")
    await world.perform([run], "telling")
    assert receiver.received[0].document == {"who": 'Zoë "Z" <b>', "order": "o-1", "deep": [{"plan": "gold"}], "n": 1}
    assert receiver.received[0].headers["authorization"] == "Bearer t"


async def test_a_value_that_is_missing_fails_the_call_before_it_is_made(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact(attributes={"plan": "gold"})
    assert said(await world.perform([run], "telling")) == [("failed", "missing_value:run.order")]
    assert receiver.received == []
    await world.variables(run, order="o-1")  # a person mends it and retries
    assert said(await world.perform([run], "telling", round=1)) == [("done", None)]


async def test_receivers_can_verify_that_it_was_us(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    await world.perform([run], "plain")
    (received,) = receiver.received
    headers = received.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    digest = hmac.new(webhook_secret(world.settings, world.organization_id), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    age = datetime.now(UTC) - datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    assert age < timedelta(minutes=5)  # not the workflow's clock, which says March


def test_each_organization_has_a_secret_of_its_own(settings: Settings) -> None:
    assert len({webhook_secret(settings, UUID(int=number)) for number in range(3)}) == 3


# --- what is heard ----------------------------------------------------------------------------------------------------


async def test_values_of_the_answer_are_kept_in_the_runs_variables(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    await world.variables(run, before="kept", order_id="old")
    receiver.says(201, ORDER)
    (answer,) = await world.perform([run], "saving")
    assert answer.details == {"status": 201, "saved": ["count", "order_id", "paid", "total"]}
    assert await world.kept(run) == {"before": "kept", "order_id": "A-7", "total": 9.5, "count": 2, "paid": True}
    assert "A-7" not in str([answer, (await world.effect(run))["details"]])


@pytest.mark.parametrize(
    ("body", "missed"),
    [
        (
            {"order": {"id": 7, "count": "2", "lines": []}, "paid": None},
            {"order_id": "wrong_type", "total": "absent", "count": "wrong_type", "paid": "absent"},
        ),
        (
            {"order": {"id": "x" * 5_000, "count": 2.5}},
            {"order_id": "too_long", "total": "absent", "count": "wrong_type", "paid": "absent"},
        ),
        ([1], dict.fromkeys(SAVE, "absent")),
        (b"OK", dict.fromkeys(SAVE, "answer_not_json")),
        (b"", dict.fromkeys(SAVE, "answer_not_json")),
        (b"[" * 200_000, dict.fromkeys(SAVE, "answer_not_json")),
        (b"\xff\xfe", dict.fromkeys(SAVE, "answer_not_json")),
        (b'"' + b"x" * 300_000 + b'"', dict.fromkeys(SAVE, "answer_too_large")),
    ],
    ids=["types", "sizes", "list", "text", "nothing", "deep", "bytes", "large"],
)
async def test_what_is_absent_or_of_another_type_is_not_kept_and_named(
    world: EffectWorld, receiver: Receiver, body: Any, missed: dict[str, str]
) -> None:
    run = await world.contact()
    receiver.says(200, body)
    (answer,) = await world.perform([run], "saving")
    assert said([answer]) == [("done", None)]
    assert answer.details == {"status": 200, "not_saved": missed}
    assert await world.kept(run) == {}


async def test_what_a_run_has_no_room_for_is_not_kept_and_named(world: EffectWorld, receiver: Receiver) -> None:
    full, many = await world.contact(), await world.contact()
    await world.variables(full, before="x" * (VARIABLES_BYTES - 32), order_id="old")
    await world.variables(many, count=1, **{f"v{number}": number for number in range(MOST_VARIABLES)})
    receiver.says(200, ORDER)
    room = {answer.run_id: answer.details for answer in await world.perform([full, many], "saving")}
    no = "variables_too_large"
    assert room[full] == {"status": 200, "saved": ["order_id"], "not_saved": {"total": no, "count": no, "paid": no}}
    assert room[many] == {"status": 200, "saved": ["count"], "not_saved": {"order_id": no, "total": no, "paid": no}}
    assert (await world.kept(full))["order_id"] == "A-7" and "total" not in await world.kept(full)


@pytest.mark.parametrize("status", [301, 302, 400, 401, 403, 404, 410, 413, 422])
async def test_a_refusal_fails_for_good_and_a_person_who_retries_is_obeyed(world: EffectWorld, receiver: Receiver, status: int) -> None:
    run = await world.contact()
    receiver.says(status, {"error": "ada@example.com"})
    (answer,) = await world.perform([run], "plain")
    assert said([answer]) == [("failed", f"webhook_answered_{status}")]
    assert "example.com" not in str(answer)
    assert await world.actions("effect.") == ["effect.failed"]
    receiver.says(200)
    assert said(await world.perform([run], "plain", round=1)) == [("done", None)]


async def test_with_a_way_for_failures_the_run_goes_there(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    receiver.says(404)
    assert said(await world.perform([run], "forgiving")) == [("refused", "webhook_answered_404")]
    assert (await world.effect(run))["state"] == "failed"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_what_may_pass_is_tried_again_later(world: EffectWorld, receiver: Receiver, status: int) -> None:
    run = await world.contact()
    receiver.says(status)
    (answer,) = await world.perform([run], "plain")
    assert said([answer]) == [("again", f"webhook_answered_{status}")]
    assert answer.retry_at is not None and answer.retry_at >= NOON + timedelta(seconds=30)
    assert await world.actions("effect.") == []


async def test_the_other_sides_wish_is_obeyed_within_reason(world: EffectWorld, receiver: Receiver) -> None:
    run, other = await world.people(2)
    receiver.says(503, None, Retry_After="3600")
    (answer,) = await world.perform([run], "plain")
    assert answer.retry_at >= NOON + timedelta(hours=1)
    receiver.says(429, None, Retry_After="99999999")
    (answer,) = await world.perform([other], "plain")
    assert answer.retry_at <= NOON + timedelta(hours=7)


async def test_after_enough_tries_over_hours_it_gives_up(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    receiver.says(500)
    answers = [(await world.perform([run], "plain", round=round))[0] for round in range(MAXIMUM_TRIES)]
    assert said(answers) == [("again", "webhook_answered_500")] * 7 + [("failed", "gave_up:webhook_answered_500")]
    pauses = [answer.retry_at - NOON for answer in answers[:-1]]
    assert pauses == sorted(pauses) and sum(pauses, timedelta(0)) > timedelta(hours=4)
    assert len(receiver.received) == MAXIMUM_TRIES
    (answer,) = await world.perform([run], "plain", round=MAXIMUM_TRIES)  # a person grants as many again
    assert said([answer]) == [("again", "webhook_answered_500")]
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1


async def test_no_answer_at_all_is_tried_again(world: EffectWorld, receiver: Receiver) -> None:
    runs = await world.people(3)
    receiver.answer = lambda received: b""
    assert said(await world.perform(runs[:1], "plain")) == [("again", "webhook_connection_lost")]
    assert said(await world.perform(runs[1:2], "away")) == [("again", "webhook_unreachable")]
    forever = asyncio.Event()

    async def hang(_: Received) -> None:
        await forever.wait()

    receiver.before = hang
    assert said(await world.perform(runs[2:], "hasty")) == [("again", "webhook_timeout")]


async def test_a_place_inside_is_blocked_for_good(world: EffectWorld) -> None:
    run = await world.contact()
    assert said(await world.perform([run], "inside")) == [("failed", "blocked_destination")]


async def test_a_redirect_inside_is_not_followed(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    async with receiving() as inside:
        receiver.says(307, None, Location=inside.url)
        assert said(await world.perform([run], "plain")) == [("failed", "webhook_answered_307")]
        assert inside.connections == 0


# --- once, and at least once ------------------------------------------------------------------------------------------


async def test_the_id_is_the_same_for_every_try_and_another_for_the_next_visit(world: EffectWorld, receiver: Receiver) -> None:
    run, other = await world.people(2)
    receiver.says_in_turn(answering(500), answering(200))
    await world.perform([run], "plain")
    await world.perform([run], "plain", round=1)
    await world.perform([run], "plain", visit=2)
    await world.perform([other], "plain")
    first, again, second, others = (received.headers["webhook-id"] for received in receiver.received)
    assert first == again
    assert len({first, second, others}) == 3


async def test_what_is_done_is_not_called_again(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    first = await world.perform([run], "plain")
    assert await world.perform([run], "plain") == first
    assert len(receiver.received) == 1


async def test_killed_between_the_answer_and_our_record_the_call_is_made_again_under_its_id(
    world: EffectWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.contact()
    receiver.says(200, ORDER)

    async def crash(*_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(effects, "settle", crash)
        await world.perform([run], "saving")
    assert (await world.effect(run))["state"] == "claimed"
    assert await world.kept(run) == {}
    assert said(await world.perform([run], "saving")) == [("done", None)]
    assert len(receiver.received) == 2
    assert len({received.headers["webhook-id"] for received in receiver.received}) == 1
    assert (await world.kept(run))["order_id"] == "A-7"


async def test_an_attempt_that_was_overtaken_settles_nothing(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    heard, go_on = asyncio.Event(), asyncio.Event()

    async def dawdle_once(_: Received) -> None:
        if len(receiver.received) == 1:
            heard.set()
            await go_on.wait()

    receiver.before = dawdle_once
    receiver.says_in_turn(answering(200, ORDER), answering(500))
    slow = asyncio.create_task(world.perform([run], "saving"))
    await heard.wait()
    assert said(await world.perform([run], "saving")) == [("done", None)]
    go_on.set()
    await slow
    assert (await world.effect(run))["state"] == "done"
    assert await world.actions("effect.") == ["effect.done"]


async def test_a_batch_of_two_hundred_is_one_call_with_bounded_concurrency(world: EffectWorld, receiver: Receiver) -> None:
    runs = await world.people(200)

    async def dawdle(_: Received) -> None:
        await asyncio.sleep(0.005)

    receiver.before = dawdle
    receiver.says(200, ORDER)
    assert said(await world.perform(runs, "saving")) == [("done", None)] * 200
    assert len({received.headers["webhook-id"] for received in receiver.received}) == len(receiver.received) == 200
    assert 1 < receiver.most_in_the_air <= call_webhook.PLACES
    assert receiver.connections <= 2 * call_webhook.PLACES
    assert await world.one("SELECT count(*) FROM runs WHERE variables ->> 'order_id' = 'A-7'") == 200


async def test_one_that_fails_does_not_keep_the_others(world: EffectWorld, receiver: Receiver) -> None:
    runs = await world.people(5)
    bad = str(runs[2])

    def choose(received: Received) -> bytes:
        return answering(404 if received.document["run_id"] == bad else 200)

    receiver.answer = choose
    assert [word for word, _ in said(await world.perform(runs, "plain"))] == ["done", "done", "failed", "done", "done"]


async def test_a_mistake_of_ours_in_one_call_parks_its_run_and_leaves_the_others_on_record(
    world: EffectWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, *good = runs = await world.people(5)
    identifier = str(call_webhook.message_id(StepVisit(run_id=bad, contact_id=world.contacts[bad], step_id="plain")))

    def signed(secret: bytes, message_id: str, *rest: Any) -> dict[str, str]:
        if message_id == identifier:
            raise RuntimeError("a bug")
        return signed_headers(secret, message_id, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("activities.effects.call_webhook.signed_headers", signed)
        assert said(await world.perform(runs, "plain")) == [("failed", "step_failed:RuntimeError"), *[("done", None)] * 4]
    assert {(await world.effect(run))["state"] for run in good} == {"done"}
    assert said(await world.perform(runs, "plain")) == [("done", None)] * 5
    assert len(receiver.received) == len({received.headers["webhook-id"] for received in receiver.received}) == 5


@pytest.mark.parametrize("way", ["cancel", "worker_shutdown"])
async def test_a_worker_that_goes_away_settles_what_is_in_the_air_and_calls_nobody_else(
    world: EffectWorld, receiver: Receiver, way: str
) -> None:
    runs = await world.people(2 * call_webhook.PLACES)
    in_the_air, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: Received) -> None:
        if len(receiver.received) == call_webhook.PLACES:
            in_the_air.set()
        await go_on.wait()

    receiver.before = wait
    environment = ActivityEnvironment()
    attempt = asyncio.create_task(world.perform(runs, "plain", environment=environment))
    await in_the_air.wait()
    environment.cancel() if way == "cancel" else environment.worker_shutdown()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError if way == "cancel" else ApplicationError):
        await attempt
    states = [row["state"] for row in await world.sql("SELECT state FROM effects")]
    assert (states.count("done"), len(receiver.received)) == (call_webhook.PLACES, call_webhook.PLACES)
    assert said(await world.perform(runs, "plain")) == [("done", None)] * len(runs)
    assert len({received.headers["webhook-id"] for received in receiver.received}) == len(receiver.received) == len(runs)


async def test_a_call_that_outlasts_the_workers_patience_takes_no_other_with_it(
    world: EffectWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_webhook, "LAST_WORDS", 2.0)
    slow, quick = await world.people(2)
    both, never = asyncio.Event(), asyncio.Event()

    async def wait(received: Received) -> None:
        if len(receiver.received) == 2:
            both.set()
        if received.document["run_id"] == str(slow):
            await never.wait()

    receiver.before = wait
    environment = ActivityEnvironment()
    attempt = asyncio.create_task(world.perform([slow, quick], "plain", environment=environment))
    await both.wait()
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert [(await world.effect(run))["state"] for run in (slow, quick)] == ["claimed", "done"]
    never.set()


async def test_a_contact_that_is_gone_is_not_told_of(world: EffectWorld, receiver: Receiver) -> None:
    erased, removed, here = await world.contact(consent=None), await world.contact(consent=None), await world.contact()
    await world.forget(erased)
    await world.sql("UPDATE runs SET contact_id = :other WHERE id = :id", other=world.contacts[here], id=removed)
    await world.sql("DELETE FROM contacts WHERE id = :id", id=world.contacts[removed])
    answers = await world.perform([erased, removed, here], "plain")
    assert said(answers) == [("refused", "contact_gone"), ("refused", "contact_gone"), ("done", None)]
    assert len(receiver.received) == 1


async def test_nothing_is_called_while_the_journey_is_paused_or_the_organization_suspended(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    await world.sql("UPDATE journeys SET paused_at = now()")
    (answer,) = await world.perform([run], "plain")
    assert said([answer]) == [("again", "journey_paused")]
    (later,) = await world.perform([run], "plain", round=9)
    assert answer.retry_at < later.retry_at <= NOON + timedelta(minutes=6)
    await world.sql("UPDATE journeys SET paused_at = NULL")
    await world.sql("UPDATE organizations SET status = 'suspended'")
    assert said(await world.perform([run], "plain")) == [("again", "organization_suspended")]
    assert receiver.received == []


async def test_what_waits_for_slow_calls_is_not_called_once_its_journey_is_paused(
    world: EffectWorld, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effect, "LOOK_EVERY", 0.1)
    runs = await world.people(call_webhook.PLACES + 3)

    async def pause_the_journey(_: Received) -> None:
        if len(receiver.received) == call_webhook.PLACES:
            await world.sql("UPDATE journeys SET paused_at = now()")
        while len(receiver.received) < call_webhook.PLACES or await world.one("SELECT paused_at FROM journeys") is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # a look is due

    receiver.before = pause_the_journey
    answers = said(await world.perform(runs, "plain"))
    assert Counter(answers) == {("done", None): call_webhook.PLACES, ("again", "journey_paused"): 3}
    assert len(receiver.received) == call_webhook.PLACES
    receiver.before = None
    await world.sql("UPDATE journeys SET paused_at = NULL")
    assert said(await world.perform(runs, "plain")) == [("done", None)] * len(runs)
    assert len({received.headers["webhook-id"] for received in receiver.received}) == len(receiver.received) == len(runs)


async def test_a_step_that_this_release_does_not_know_how_to_do_fails_the_batch(world: EffectWorld, receiver: Receiver) -> None:
    run = await world.contact()
    with pytest.raises(Exception, match="no step"):
        await world.perform([run], "unknown")
    assert receiver.received == []
