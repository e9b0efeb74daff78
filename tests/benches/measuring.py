"""What every bench does with what it measures."""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from deploy.trial.installation import NotStarted

Result = dict[str, Any]


def indented(result: Result) -> str:
    return json.dumps(result, indent=2)


def conclude(
    bench: str,
    measurement: Coroutine[Any, Any, Result],
    *,
    as_json: bool,
    met: Callable[[Result], bool] = lambda result: True,
    shown: Callable[[Result], str] = indented,
) -> int:
    """Prints the result: as one line of JSON, or as `shown`. 0: the goals are met. 1: not. 2: the installation could not be started.
    143: ended by SIGTERM."""
    try:
        result = asyncio.run(measurement)
    except NotStarted as error:
        print(f"leadstats bench {bench}: {error}", file=sys.stderr)
        return 2
    except asyncio.CancelledError:  # by SIGTERM
        return 143
    print(json.dumps(result) if as_json else shown(result))
    return 0 if met(result) else 1
