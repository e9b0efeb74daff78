"""Work that keeps a processor busy is bounded, and nobody's keeps others waiting."""

import asyncio
import threading
from datetime import timedelta
from uuid import uuid4

import pytest

from api import processor
from api.processor import Heed, Processor
from models.domain.errors import Unavailable

HOUR = timedelta(hours=1)
ALICE, BOB, CHARLIE = uuid4(), uuid4(), uuid4()


def endless(heed: Heed) -> None:
    while True:
        heed()


async def work(place: Processor, who: object, do: object) -> object:
    return await place.work(who, "The work", "Do less.", do)  # type: ignore[arg-type]


async def test_work_has_a_limit_and_says_the_way_out() -> None:
    place = Processor(1, timedelta(milliseconds=50))
    for _ in range(2):  # the place is free again
        with pytest.raises(Unavailable, match=r"The work took more than 0\.05 seconds of work and was given up\. Do less\."):
            await work(place, ALICE, endless)
    assert await work(place, ALICE, lambda heed: heed() or "done") == "done"


async def test_who_asks_for_much_waits_behind_themselves() -> None:
    place, go, began = Processor(2, HOUR), threading.Event(), []

    def slow(number: int) -> None:
        began.append(number)
        assert go.wait(60)

    mine = [asyncio.create_task(work(place, ALICE, lambda heed, number=number: slow(number))) for number in range(3)]
    assert await work(place, BOB, lambda heed: "done") == "done"
    assert await work(place, CHARLIE, lambda heed: list(began)) == [0]
    go.set()
    await asyncio.gather(*mine)
    assert began == [0, 1, 2]


async def test_nobody_waits_for_a_place_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "PATIENCE", timedelta(milliseconds=50))
    place, go = Processor(1, HOUR), threading.Event()
    busy = asyncio.create_task(work(place, ALICE, lambda heed: go.wait(60)))
    await asyncio.sleep(0)  # it has its place
    for who in (ALICE, BOB):
        with pytest.raises(Unavailable, match="has waited for long enough"):
            await work(place, who, lambda heed: "never")
    go.set()
    assert await busy is True
    assert await work(place, BOB, lambda heed: "done") == "done"


async def test_work_for_which_nobody_waits_any_more_stops() -> None:
    place, began, stopped = Processor(1, HOUR), threading.Event(), threading.Event()

    def hopeless(heed: Heed) -> None:
        began.set()
        try:
            endless(heed)
        finally:
            stopped.set()

    task = asyncio.create_task(work(place, ALICE, hopeless))
    assert await asyncio.to_thread(began.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stopped.wait, 60)
