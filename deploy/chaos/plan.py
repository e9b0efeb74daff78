"""What is killed, and when: decided beforehand from a seed, so that a finding can be repeated."""

import random
from dataclasses import dataclass, replace

EVERYTHING = "everything"  # all parts at once, as when the power fails
PARTS = ("worker", "api", "temporal", "postgres", "sandbox")
LEAST = 3  # kills of PostgreSQL and of Temporal, where there are enough kills for that
LONGEST_PAUSE = 4.0  # seconds
SOON = 0.4  # seconds: an operation on some dozens of runs takes about as long


@dataclass(frozen=True)
class Planned:
    """`pause`: seconds to let things run before the kill."""

    part: str
    pause: float


def plan_kills(seed: int, kills: int) -> list[Planned]:
    """`kills` kills in random order. Servers die at least `LEAST` times each from 20 kills on, once each from 4 on."""
    chance = random.Random(seed)
    parts = _parts(kills)
    chance.shuffle(parts)
    return [Planned(part, chance.uniform(0.2, LONGEST_PAUSE)) for part in parts]


def plan_replay_kills(seed: int, kills: int) -> list[Planned]:
    """Likewise for the replays. Every second kill, the first included, comes soon: while an operation is being carried out."""
    chance = random.Random(f"replays {seed}")
    planned = plan_kills(chance.randrange(1 << 30), kills)
    return [replace(one, pause=chance.uniform(0.0, SOON)) if number % 2 == 0 else one for number, one in enumerate(planned)]


def _parts(kills: int) -> list[str]:
    servers = 0 if kills < 4 else max(1, kills * LEAST // 20)
    others = kills // 10
    parts = ["temporal", "postgres"] * servers + ["sandbox"] * others + [EVERYTHING] * others
    rest = kills - len(parts)
    workers = rest - rest * 2 // 5
    return parts + ["worker"] * workers + ["api"] * (rest - workers)
