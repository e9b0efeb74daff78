"""Why a campaign ended that wrote to nobody. Pure."""

from collections.abc import Mapping
from typing import Final

NOBODY_FITTED: Final = "nobody_fitted"
EVERYBODY_LEFT_OUT: Final = "everybody_left_out"
WORDS: Final[Mapping[str, str]] = {
    NOBODY_FITTED: "No contact fitted the segment when the audience was taken.",
    EVERYBODY_LEFT_OUT: "Every contact that fitted the segment was left out; `left_out` counts why.",
}


def why_nobody(audience: int | None, left_out: Mapping[str, int] | None) -> str | None:
    """The reason code of an audience of nobody; None where there is somebody in it, or it has not been taken."""
    if audience != 0:
        return None
    return EVERYBODY_LEFT_OUT if left_out else NOBODY_FITTED
