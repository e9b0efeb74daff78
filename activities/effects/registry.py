"""Which class does what a kind of step says: every module of this package names its own in `EFFECTS`. docs/adding-a-step.md walks
through adding one."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

from activities import effects
from activities.effects.effect import Build


def _named() -> Iterator[tuple[str, Build]]:
    for module in pkgutil.iter_modules(effects.__path__, f"{effects.__name__}."):
        if module.name != __name__:
            yield from getattr(importlib.import_module(module.name), "EFFECTS", {}).items()


EFFECTS: Mapping[str, Build] = dict(_named())
