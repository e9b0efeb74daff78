"""The SMTP provider against the sandbox's inbox, over real sockets. Every test counts what the inbox holds afterwards."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from activities.contracts.sending import SendOutcome
from activities.providers.destination import Destinations
from activities.providers.email_message import UnsubscribeMissing
from activities.providers.port import ABORTED
from activities.providers.smtp import SmtpAccount, SmtpProvider, check
from models.settings import Settings
from models.store import sandbox
from models.store.session import Database
from tests.inbox import Fence, RunningInbox, email, new_organization, serving


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(settings: Settings) -> AsyncIterator[Settings]:
    async with serving(settings) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def inbox(served: Settings, database: Database) -> RunningInbox:
    return RunningInbox(served, database, await new_organization(database))


@pytest_asyncio.fixture(loop_scope="session")
async def provider(inbox: RunningInbox) -> AsyncIterator[SmtpProvider]:
    built = patient(inbox, 60)
    yield built
    await built.close()


def patient(inbox: RunningInbox, answer_seconds: float) -> SmtpProvider:
    return SmtpProvider(SmtpAccount.of(inbox.connection(), inbox.settings), Destinations(inbox.settings), answer_seconds)


async def test_accepted_means_one_message_in_the_inbox(inbox: RunningInbox, provider: SmtpProvider) -> None:
    message, fence = email(subject="Grüße 🎉"), Fence()
    answer = await provider.send(message, fence)
    assert answer.outcome is SendOutcome.ACCEPTED and answer.provider_message_id
    [received] = await inbox.received()
    assert received.delivery_id == message.delivery_id
    assert received.subject == "Grüße 🎉"
    assert received.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert fence.asked == 2


async def test_bytes_arrive_as_they_were_built(inbox: RunningInbox, provider: SmtpProvider) -> None:
    dots = ".one\n..two\n.\nthree\n."
    await provider.send(email(text=dots, html=""), Fence())
    [received] = await inbox.received()
    async with inbox.database.organization(inbox.organization_id) as session:
        _, raw = await sandbox.get_message(session, received.id)
    assert raw.partition(b"\r\n\r\n")[2].decode().replace("\r\n", "\n").rstrip("\n") == dots


REFUSALS = [
    ("mail", {"action": "reply", "code": 421}, SendOutcome.TRANSIENT, "mail_421"),
    ("mail", {"action": "reply", "code": 451}, SendOutcome.TRANSIENT, "mail_451"),
    ("mail", {"action": "reply", "code": 530}, SendOutcome.CONNECTION_BROKEN, "authentication_failed"),
    ("mail", {"action": "refuse"}, SendOutcome.CONNECTION_BROKEN, "sender_refused"),
    ("rcpt", {"action": "reply", "code": 450}, SendOutcome.TRANSIENT, "rcpt_450"),
    ("rcpt", {"action": "refuse"}, SendOutcome.RECIPIENT_PERMANENT, "mailbox_unknown"),
    ("rcpt", {"action": "reply", "code": 553}, SendOutcome.RECIPIENT_PERMANENT, "address_invalid"),
    ("rcpt", {"action": "reply", "code": 550, "message": "5.7.26 not authenticated"}, SendOutcome.CONTENT_PERMANENT, "policy_refused"),
    ("data", {"action": "reply", "code": 452}, SendOutcome.TRANSIENT, "body_452"),
    ("data", {"action": "reply", "code": 552}, SendOutcome.CONTENT_PERMANENT, "too_large"),
    ("data", {"action": "refuse"}, SendOutcome.CONTENT_PERMANENT, "policy_refused"),
    ("data", {"action": "reply", "code": 550, "message": "5.1.1 unknown"}, SendOutcome.RECIPIENT_PERMANENT, "mailbox_unknown"),
    ("connect", {"action": "refuse"}, SendOutcome.TRANSIENT, "auth_421"),
    ("auth", {"action": "refuse"}, SendOutcome.CONNECTION_BROKEN, "authentication_failed"),
    ("auth", {"action": "reply", "code": 454}, SendOutcome.TRANSIENT, "auth_454"),
]


@pytest.mark.parametrize(("phase", "fault", "outcome", "reason"), REFUSALS)
async def test_a_refusal_means_what_its_phase_and_code_say(
    inbox: RunningInbox, provider: SmtpProvider, phase: str, fault: dict[str, Any], outcome: SendOutcome, reason: str
) -> None:
    await inbox.fail(phase, **fault)
    answer = await provider.send(email(), Fence())
    assert (answer.outcome, answer.reason) == (outcome, reason)
    assert (answer.retry_after is not None) == (outcome is SendOutcome.TRANSIENT)
    assert await inbox.received() == []


async def test_after_a_refusal_the_next_message_goes_out_once(inbox: RunningInbox, provider: SmtpProvider) -> None:
    await inbox.fail("rcpt", "refuse", recipient="ann@example.org")
    assert (await provider.send(email(), Fence())).outcome is SendOutcome.RECIPIENT_PERMANENT
    assert (await provider.send(email(recipient="bob@example.org"), Fence())).outcome is SendOutcome.ACCEPTED
    assert [message.recipient for message in await inbox.received()] == ["bob@example.org"]


async def test_a_fault_for_one_recipient_spares_the_others(inbox: RunningInbox, provider: SmtpProvider) -> None:
    await inbox.fail("rcpt", "refuse", recipient="ann@example.org", remaining=None)
    assert (await provider.send(email(recipient="bob@example.org"), Fence())).outcome is SendOutcome.ACCEPTED
    assert (await provider.send(email(recipient="ANN@example.org"), Fence())).outcome is SendOutcome.RECIPIENT_PERMANENT


async def test_a_drop_before_the_dot_is_unknown_and_nothing_was_kept(inbox: RunningInbox, provider: SmtpProvider) -> None:
    await inbox.fail("data", "drop_before_dot")
    answer = await provider.send(email(), Fence())
    assert (answer.outcome, answer.reason) == (SendOutcome.UNKNOWN, "connection_lost_after_data")
    assert await inbox.received() == []


async def test_a_drop_after_the_dot_is_unknown_and_exactly_one_was_kept(inbox: RunningInbox, provider: SmtpProvider) -> None:
    await inbox.fail("data", "drop_after_dot")
    message = email()
    answer = await provider.send(message, Fence())
    assert (answer.outcome, answer.reason) == (SendOutcome.UNKNOWN, "connection_lost_after_data")
    assert [received.delivery_id for received in await inbox.received()] == [message.delivery_id]


async def test_a_late_answer_is_unknown_and_exactly_one_was_kept(inbox: RunningInbox) -> None:
    await inbox.fail("data", "delay", delay_ms=4000)
    provider = patient(inbox, 3)
    answer = await provider.send(email(), Fence())
    await provider.close()
    assert (answer.outcome, answer.reason) == (SendOutcome.UNKNOWN, "no_answer")
    async with asyncio.timeout(60):
        while not await inbox.received():
            await asyncio.sleep(0.1)
    assert len(await inbox.received()) == 1


async def test_a_slow_server_is_only_slow(inbox: RunningInbox, provider: SmtpProvider) -> None:
    await inbox.fail("mail", "delay", delay_ms=200)
    await inbox.fail("data", "delay", delay_ms=200)
    assert (await provider.send(email(), Fence())).outcome is SendOutcome.ACCEPTED
    assert len(await inbox.received()) == 1


async def test_a_closed_fence_stops_the_message_and_keeps_the_link(inbox: RunningInbox, provider: SmtpProvider) -> None:
    closed = Fence(answer=False)
    assert (await provider.send(email(), closed)).outcome == ABORTED
    assert closed.asked == 1
    assert (await provider.send(email(recipient="bob@example.org"), Fence())).outcome is SendOutcome.ACCEPTED
    assert [message.recipient for message in await inbox.received()] == ["bob@example.org"]


async def test_the_fence_is_not_asked_for_a_refused_recipient(inbox: RunningInbox, provider: SmtpProvider) -> None:
    await inbox.fail("rcpt", "refuse")
    fence = Fence()
    await provider.send(email(), fence)
    assert fence.asked == 0


async def test_a_fence_that_raises_sends_nothing(inbox: RunningInbox, provider: SmtpProvider) -> None:
    async def broken() -> bool:
        raise RuntimeError("database away")

    with pytest.raises(RuntimeError, match="database away"):
        await provider.send(email(), broken)
    assert await inbox.received() == []


async def test_an_idle_link_told_421_is_replaced(inbox: RunningInbox, provider: SmtpProvider) -> None:
    await provider.send(email(), Fence())
    await asyncio.sleep(0.3)  # the inbox reads its faults every quarter of a second
    await inbox.fail("mail", "reply", code=421)
    assert (await provider.send(email(), Fence())).outcome is SendOutcome.ACCEPTED
    assert len(await inbox.received()) == 2


async def test_links_are_shared_and_messages_are_not(inbox: RunningInbox, provider: SmtpProvider) -> None:
    messages = [email(recipient=f"contact-{number}@example.org") for number in range(60)]
    waiting = iter(messages)

    async def send_some() -> None:
        for message in waiting:
            assert (await provider.send(message, Fence())).outcome is SendOutcome.ACCEPTED

    await asyncio.gather(*(send_some() for _ in range(8)))
    assert len(provider._idle) == 8
    assert sorted(received.recipient for received in await inbox.received()) == sorted(message.recipient for message in messages)


async def test_cancelling_after_the_fence_leaves_no_link_behind(inbox: RunningInbox, provider: SmtpProvider) -> None:
    await inbox.fail("data", "delay", delay_ms=30_000)
    asked = asyncio.Event()

    async def let_pass() -> bool:
        asked.set()
        return True

    sending = asyncio.create_task(provider.send(email(), let_pass))
    await asked.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert provider._idle == []


@pytest.mark.parametrize(
    ("recipient", "reason"),
    [
        ("nobody", "address_invalid"),
        ("ann@example.org\r\nRCPT TO:<eve@example.org>", "address_invalid"),
        ("ann@example.org> SIZE=1", "address_invalid"),
        ("jürgen@example.org", "address_needs_smtputf8"),
    ],
)
async def test_an_impossible_address_never_reaches_the_server(
    inbox: RunningInbox, provider: SmtpProvider, recipient: str, reason: str
) -> None:
    fence = Fence()
    answer = await provider.send(email(recipient=recipient), fence)
    assert (answer.outcome, answer.reason, fence.asked) == (SendOutcome.RECIPIENT_PERMANENT, reason, 0)


async def test_marketing_without_a_way_to_leave_is_never_sent(inbox: RunningInbox, provider: SmtpProvider) -> None:
    with pytest.raises(UnsubscribeMissing):
        await provider.send(email(unsubscribe_url=None), Fence())
    assert await inbox.received() == []


async def test_check_tells_what_is_wrong(inbox: RunningInbox) -> None:
    destinations = Destinations(inbox.settings)

    async def checked(**changes: Any) -> tuple[str, str | None]:
        answer = await check(SmtpAccount.of(inbox.connection(**changes), inbox.settings), destinations)
        return answer.outcome, answer.reason

    assert await checked() == (SendOutcome.ACCEPTED, None)
    assert await checked(secret="wrong") == (SendOutcome.CONNECTION_BROKEN, "authentication_failed")
    assert await checked(host="localhost") == (SendOutcome.CONNECTION_BROKEN, "address_not_allowed")
    assert await checked(security="none") == (SendOutcome.CONNECTION_BROKEN, "authentication_not_offered")
    assert await checked(host="no-such-host.invalid") == (SendOutcome.TRANSIENT, "unreachable")


async def test_a_certificate_of_somebody_else_is_refused(inbox: RunningInbox) -> None:
    """The sandbox's own certificate counts only at the sandbox's own address."""
    port = inbox.settings.sandbox_smtp_port
    elsewhere = inbox.settings.model_copy(update={"sandbox_smtp_host": "unused.example", "private_destinations": f"127.0.0.1:{port}"})
    answer = await check(SmtpAccount.of(inbox.connection(), elsewhere), Destinations(elsewhere))
    assert (answer.outcome, answer.reason) == (SendOutcome.CONNECTION_BROKEN, "certificate_invalid")
