"""What the parts of an installation cost in processor time."""

from collections.abc import Mapping

import psutil


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor time used so far, by part, with its children (PostgreSQL's are many, and those that ended count too)."""
    return {part: _of(pid) for part, pid in pids.items()}


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {part: after[part] - before.get(part, 0.0) for part in after}


def _of(pid: int) -> float:
    """Processor seconds of the process, its living descendants, and its children that have ended."""
    process = psutil.Process(pid)
    own = process.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:  # ended just now
            continue
        total += times.user + times.system
    return float(total)
