"""Asking again ever more rarely. Pure."""

from datetime import timedelta
from typing import Final

_DOUBLINGS: Final = 20  # from a second that is twelve days: longer than anything waits, and no number becomes too large


def doubled(first: timedelta, times: int, longest: timedelta) -> timedelta:
    """How long to wait when that was done `times` times before: `first`, doubled each time, at most `longest`."""
    return min(first * (1 << min(times, _DOUBLINGS)), longest)
