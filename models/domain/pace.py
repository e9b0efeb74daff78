"""Dealing out starts so that no hour, whenever it begins, has more than so many. Pure. All moments are aware UTC."""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

HOUR: Final = timedelta(hours=1)
Crowd = tuple[datetime, int]  # so many at one moment


@dataclass(frozen=True)
class Postponed:
    """Those at the places `first` to `last` (from 1, in the order in which they would have started) start at `at` instead."""

    first: int
    last: int
    at: datetime


def postponements(others: Sequence[Crowd], wanted: Sequence[Crowd], most: int) -> list[Postponed]:
    """Who of those that want to start has to start later, as early as may be and in order, where the `others` start anyway and no hour is
    to have more than `most` starts. Both are in the order of time, each moment once. Where the others are too many by themselves, nobody
    is added to those hours."""
    hours = _Hours(others, most)
    found: list[Postponed] = []
    place = 1
    for own, count in wanted:
        left = count
        while left:
            at, room = hours.next_room(own)
            here = min(room, left)
            hours.add(here)
            if at > own:
                found.append(Postponed(place, place + here - 1, at))
            place, left = place + here, left - here
    return found


class _Hours:
    """The hours that a start at `at`, which only moves on, falls into. Each begins with somebody's start. One is forgotten when another
    that ends later is as full. What is added at `at` is added to all of them, and counted once for all."""

    def __init__(self, others: Sequence[Crowd], most: int) -> None:
        self._most = most
        self._moments = [at for at, _ in others]
        self._before = [0]  # how many others start before each of them
        for _, count in others:
            self._before.append(self._before[-1] + count)
        self._passed = 0  # so many of the moments are not later than `at`
        self._at: datetime | None = None
        self._added = 0
        self._begun: deque[tuple[datetime, int]] = deque()  # when the hour began, and its starts less what was added by then

    def next_room(self, own: datetime) -> tuple[datetime, int]:
        """The first moment from `own` on at which one more may start, and how many may."""
        at = own if self._at is None else max(self._at, own)
        while True:
            self._move_to(at)
            fullest = self._begun[0][1] + self._added if self._begun else 0
            ahead = self._others_from(at)
            if fullest < self._most and ahead < self._most:
                return at, self._most - max(fullest, ahead)
            begins = self._begun[0][0] if fullest >= self._most else self._moments[bisect_left(self._moments, at)]
            at = begins + HOUR

    def add(self, count: int) -> None:
        """So many start at `at`."""
        assert self._at is not None
        self._added += count
        self._begin(self._at, self._others_from(self._at) + count)

    def _move_to(self, at: datetime) -> None:
        self._at = at
        while self._passed < len(self._moments) and self._moments[self._passed] <= at:
            moment = self._moments[self._passed]
            self._begin(moment, self._others_from(moment))
            self._passed += 1
        while self._begun and self._begun[0][0] + HOUR <= at:
            self._begun.popleft()

    def _begin(self, moment: datetime, starts: int) -> None:
        while self._begun and self._begun[-1][1] + self._added <= starts:
            self._begun.pop()
        self._begun.append((moment, starts - self._added))

    def _others_from(self, moment: datetime) -> int:
        """How many others start in the hour that begins then."""
        return self._before[bisect_left(self._moments, moment + HOUR)] - self._before[bisect_left(self._moments, moment)]
