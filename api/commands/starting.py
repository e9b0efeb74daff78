"""Starting what lacks its workflow: each for itself, so that one that cannot be started keeps no other waiting."""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from models.domain.errors import Unavailable

log = logging.getLogger(__name__)

UNANSWERED = 3  # one after the other: Temporal is away, and each further one would only wait for it, for seconds


class NotStarted(Exception):
    """Some could not be started, for reasons of the types in its text; never more of them, for that may hold personal data."""

    def __init__(self, why: Counter[str]) -> None:
        super().__init__(", ".join(sorted(why)))


Unstarted = TypeVar("Unstarted")  # a row, or its id


async def start_each(
    what: str, found: Sequence[Unstarted], start: Callable[[Unstarted], Awaitable[None]], alive: Callable[[], None]
) -> int:
    """All that were `found` are started but those that cannot be; how many were looked at. As safe to repeat as `start` is.

    `alive` is called before each start, which may take seconds.

    Raises:
        NotStarted: some were not, or were not tried because Temporal is away.
    """
    why: Counter[str] = Counter()
    unanswered = 0
    for one in found:
        alive()
        try:
            await start(one)
            unanswered = 0
        except Exception as error:
            why[type(error).__name__] += 1
            log.warning("%s %s could not be started: %s", what, getattr(one, "id", one), type(error).__name__)
            unanswered = unanswered + 1 if isinstance(error, Unavailable) else 0
        if unanswered == UNANSWERED:
            break
    if why:
        raise NotStarted(why)
    return len(found)
