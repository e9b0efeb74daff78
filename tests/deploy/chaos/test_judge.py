from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from deploy.chaos.judge import Delivery, Expected, Kill, Outcome, Received, Run, Verdict, judge

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
REACH = timedelta(seconds=5)
EXPECTED = Expected(frozenset({"ann@example.com"}), {"send1": "One", "send2": "Two"})
FIRST, SECOND = UUID(int=1), UUID(int=2)
RUN = Run("ann@example.com", "completed")
SENT = (
    Delivery(FIRST, "ann@example.com", "send1", "accepted", NOON),
    Delivery(SECOND, "ann@example.com", "send2", "accepted", NOON),
)
MAIL = (Received("ann@example.com", "One", FIRST), Received("ann@example.com", "Two", SECOND))
STRANGER = Run("carl@example.com", "completed")  # did not agree, and got nothing: as it should be


def verdict(
    runs: Any = (RUN, STRANGER), deliveries: tuple[Delivery, ...] = SENT, received: tuple[Received, ...] = MAIL, kills: Any = ()
) -> Verdict:
    return judge(EXPECTED, Outcome(runs, deliveries, received), kills, REACH)


def kill(part: str, seconds: float, lasting: float = 1) -> Kill:
    return Kill(part, NOON + timedelta(seconds=seconds), NOON + timedelta(seconds=seconds + lasting))


def test_all_is_well_when_everyone_got_each_message_once() -> None:
    assert verdict() == Verdict(0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert verdict().ok


def test_a_completed_run_whose_message_never_arrived_is_lost() -> None:
    found = verdict(received=MAIL[:1])
    assert (found.lost, found.lost_by, found.ok) == (1, {"messages_missing": 1}, False)


def test_a_message_that_the_ledger_calls_accepted_and_nobody_got_is_lost_even_where_the_run_waits() -> None:
    waits = Run("ann@example.com", "needs_attention")
    unknown = replace(SENT[1], state="unknown")
    assert verdict(runs=(waits,), deliveries=(SENT[0], unknown), received=(), kills=(kill("worker", 1),)).lost == 1


def test_a_contact_without_a_run_is_lost() -> None:
    assert verdict(runs=(STRANGER,), deliveries=(), received=()).lost_by == {"contacts_without_a_run": 1}


@pytest.mark.parametrize("status", ["active", "waiting", "held", "paused", "exited", "cancelled"])
def test_a_run_that_is_neither_completed_nor_waits_for_a_person_is_lost(status: str) -> None:
    assert verdict(runs=(replace(RUN, status=status), STRANGER)).lost_by == {"runs_stuck": 1}


def test_the_same_message_twice_is_a_duplicate_whatever_delivery_it_names() -> None:
    again = Received("ann@example.com", "Two", UUID(int=3))
    assert verdict(deliveries=(*SENT, replace(SENT[1], id=UUID(int=3))), received=(*MAIL, again)).duplicates == 1
    assert verdict(received=(*MAIL, MAIL[1])).duplicates == 1
    assert not verdict(received=(*MAIL, MAIL[1])).ok


def test_one_delivery_twice_is_a_duplicate_even_under_another_subject() -> None:
    assert verdict(received=(*MAIL, replace(MAIL[1], subject="Three"))).duplicates == 1


def test_a_message_to_somebody_who_did_not_agree_is_uninvited() -> None:
    found = verdict(received=(*MAIL, Received("carl@example.com", "One", UUID(int=9))))
    assert (found.uninvited, found.ok) == (1, False)


@pytest.mark.parametrize("state", ["claimed", "transmitting", "failed", "refused"])
def test_a_message_that_arrived_though_the_ledger_says_otherwise_is_unrecorded(state: str) -> None:
    found = verdict(deliveries=(SENT[0], replace(SENT[1], state=state)))
    assert (found.unrecorded, found.ok) == (1, False)


def unknown(received: bool, *kills: Kill) -> Verdict:
    waits = Run("ann@example.com", "needs_attention")
    deliveries = (SENT[0], replace(SENT[1], state="unknown"))
    return verdict(runs=(waits, STRANGER), deliveries=deliveries, received=MAIL if received else MAIL[:1], kills=kills)


@pytest.mark.parametrize("received", [True, False])
def test_an_unknown_message_is_neither_lost_nor_doubled(received: bool) -> None:
    found = unknown(received, kill("worker", 0.2))
    assert (found.unknown, found.unknown_received, found.unknown_not_received) == (1, received, not received)
    assert (found.lost, found.duplicates, found.unexplained, found.parked_otherwise) == (0, 0, 0, 0)
    assert found.ok


@pytest.mark.parametrize(
    ("part", "seconds", "lasting", "explained"),
    [
        ("worker", 0.1, 1, True),
        ("everything", 4.9, 1, True),
        ("postgres", -3, 4, True),  # down while the message was under way
        ("sandbox", 0.1, 1, True),
        ("worker", 5.1, 1, False),  # long after
        ("worker", -3, 1, False),  # back before it was handed over
        ("api", 0.1, 1, False),
        ("temporal", 0.1, 1, False),
    ],
)
def test_an_unknown_message_is_explained_by_a_kill_that_could_have_silenced_it(
    part: str, seconds: float, lasting: float, explained: bool
) -> None:
    found = unknown(True, kill(part, seconds, lasting))
    assert (found.unexplained == 0, found.ok) == (explained, explained)


def test_a_run_that_waits_for_a_person_without_an_unknown_message_is_told() -> None:
    found = verdict(runs=(replace(RUN, status="needs_attention", reason="step_failed:TimeoutError"), STRANGER))
    assert (found.parked_otherwise, found.parked_by, found.ok) == (1, {"step_failed:TimeoutError": 1}, False)
