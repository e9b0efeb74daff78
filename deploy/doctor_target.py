"""Where the installation under examination is, and which of its processes live."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deploy.state import StateDirectory

ANSWERS_NOT = {psutil.STATUS_STOPPED: "is stopped", psutil.STATUS_TRACING_STOP: "is stopped", psutil.STATUS_ZOMBIE: "has ended"}


@dataclass(frozen=True)
class Target:
    """The installation under examination. None: not known, because it is not running and the environment does not say."""

    state: Path
    api: str | None
    database_url: str | None
    owner_database_url: str | None
    sandbox_smtp: str | None
    task_queue: str
    temporal: str | None = None
    temporal_namespace: str = "default"
    processes: Mapping[str, int | None] = field(default_factory=dict)  # our parts; None: one that is not there just now

    def fault(self, part: str) -> str | None:
        """What is wrong with our process of the part; None too where the part is not ours."""
        if part not in self.processes:
            return None
        pid = self.processes[part]
        if pid is None:
            return f"{part} has no process"
        try:
            found = ANSWERS_NOT.get(psutil.Process(pid).status())
        except psutil.NoSuchProcess:
            found = "has ended"
        return found and f"{part} (process {pid}) {found}"

    def remedy(self, otherwise: str) -> str:
        """How to wake those of our processes that somebody stopped by a signal; `otherwise` where there are none."""
        stopped = [str(pid) for part, pid in self.processes.items() if "is stopped" in (self.fault(part) or "")]
        return f"Processes of this installation are stopped. Let them go on: kill -CONT {' '.join(stopped)}" if stopped else otherwise


def locate(state: StateDirectory, environment: Mapping[str, str]) -> Target:
    """What the state directory says while the installation runs or starts; otherwise only what the environment names.

    The usual ports are never guessed at, nor those of a stopped installation: another's parts may listen there.
    """
    running, processes = state.installation() or {}, state.processes()
    expected = dict.fromkeys(running.get("pids", ())) | processes
    ports = state.ports() if "temporal" in processes else {}
    own_temporal = running.get("temporal") or ("temporal" in ports and f"127.0.0.1:{ports['temporal']}") or None
    namespace = environment.get("TEMPORAL_NAMESPACE") or running.get("temporal_namespace")
    return Target(
        state=state.path,
        api=running.get("api") or environment.get("LEADSTATS_PUBLIC_URL"),
        database_url=running.get("database_url") or environment.get("DATABASE_APP_URL"),
        owner_database_url=running.get("owner_database_url") or environment.get("DATABASE_URL"),
        sandbox_smtp=running.get("sandbox_smtp"),
        task_queue=environment.get("LEADSTATS_TASK_QUEUE", "journeys"),
        temporal=environment.get("TEMPORAL_ADDRESS") or own_temporal,
        temporal_namespace=namespace or "default",
        processes=expected,
    )
