"""What an answer to a webhook's call means, and how long to wait before the next try. Pure."""

from datetime import timedelta
from typing import Final, Literal

TRANSIENT: Final = frozenset({408, 425, 429})
# After the first try, the second, …: about eight hours in all, for a server that is down overnight.
PAUSES: Final = tuple(timedelta(minutes=minutes) for minutes in (0.5, 2, 10, 30, 60, 120, 240))


def meaning(status: int) -> Literal["done", "again", "failed"]:
    """Of an HTTP status: taken, worth another try, or refused for good."""
    if 200 <= status < 300:
        return "done"
    return "again" if status in TRANSIENT or status >= 500 else "failed"


def pause_after(tries: int) -> timedelta:
    """How long to wait after so many tries (at least one)."""
    return PAUSES[min(tries, len(PAUSES)) - 1]
