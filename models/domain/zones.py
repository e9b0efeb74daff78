"""Which time zones there are. Pure, but for the table of zones itself, which is read once."""

import zoneinfo
from functools import cache

_NO_PLACES = frozenset({"localtime", "Factory"})  # the machine's own clock, and one that nobody has set


@cache
def zone_names() -> frozenset[str]:
    """The IANA names that contacts, organizations, waits and campaigns may have."""
    return frozenset(zoneinfo.available_timezones()) - _NO_PLACES
