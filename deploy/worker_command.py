"""`leadstats worker`: a worker in this process."""

import argparse
import gc

from deploy.serving import serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings come from the environment: docs/operating.md."""


def run(arguments: argparse.Namespace) -> int:
    import worker

    _collect_garbage_less_often()
    return serve(worker.run)


def _collect_garbage_less_often() -> None:
    """A worker holds the states of thousands of runs, which the default collector walks again and again: a sixth of its
    processor time (measured 2026-11-23, `leadstats bench throughput`, 1,000 and 10,000 contacts)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 25, 100)
