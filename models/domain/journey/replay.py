"""Replaying a run from a step: how often each step counts as visited, and what is kept, to be done and uncertain from there on. Pure.

A chain is a run, its replay, the replay's replay, and so on: every run is replayed at most once. What any of them has done at a
step, for a visit, is done for all of them.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from models.domain.journey.definition import Definition, SendStep, targets
from models.domain.journey.steps.base import StepModel
from models.domain.journey.steps.effect import EffectStep

Place = tuple[str, int]  # step and visit


@dataclass(frozen=True)
class Arrival:
    """That a run came to a step for the `visit`-th time; `sequence` of the first line of its record that says so."""

    step_id: str
    visit: int
    sequence: int


@dataclass(frozen=True)
class Trip:
    """One run of a chain. `visits`: how often each step counted as visited before it began."""

    run_id: UUID
    visits: Mapping[str, int] = field(default_factory=dict)
    arrivals: Sequence[Arrival] = ()


def visits_before(chain: Sequence[Trip], step_id: str, looping: frozenset[str]) -> dict[str, int]:
    """How often each step counts as visited by a run that is to come to `step_id` once more as when the chain, newest run first, last did:
    so it meets what was done then. `looping`: of the version that it goes on.

    A step that it can pass but that cannot be passed twice counts as not visited, whatever another version's order of steps was: what
    was done there is kept.
    """
    for trip in chain:
        last = max((each for each in trip.arrivals if each.step_id == step_id), key=lambda each: each.sequence, default=None)
        if last is not None:
            again = {each.step_id for each in trip.arrivals if each.sequence >= last.sequence}
            counts = _counts(trip, last.sequence) | {step_id: last.visit - 1}
            return {step: visits for step, visits in counts.items() if visits > 0 and step in looping | again}
    counts = _counts(chain[0], None) if chain else {}
    return {step: visits for step, visits in counts.items() if step in looping}


def _counts(trip: Trip, before: int | None) -> dict[str, int]:
    counts = dict(trip.visits)
    for each in trip.arrivals:
        if before is None or each.sequence < before:
            counts[each.step_id] = max(counts.get(each.step_id, 0), each.visit)
    return counts


# --- what lies ahead -------------------------------------------------------------------------------------------------


def steps_ahead(definition: Definition, step_id: str) -> list[str]:
    """The step and all that can be come to from it, the nearest first."""
    found, waiting = {step_id: None}, deque([step_id])
    while waiting:
        for target in targets(definition.steps[waiting.popleft()]):
            if target not in found:
                found[target] = None
                waiting.append(target)
    return list(found)


def on_every_way(definition: Definition, step_id: str) -> frozenset[str]:
    """The steps that no way from `step_id` to an end goes round."""
    ahead = steps_ahead(definition, step_id)
    return frozenset(each for each in ahead if each == step_id or not _ends_without(definition, step_id, each))


def _ends_without(definition: Definition, step_id: str, avoided: str) -> bool:
    seen, waiting = {step_id, avoided}, [step_id]
    while waiting:
        exits = [target for _, target in definition.steps[waiting.pop()].exits()]
        if not exits or None in exits:
            return True
        new = {target for target in exits if target is not None} - seen
        seen |= new
        waiting += new
    return False


def has_effect(step: StepModel) -> bool:
    """Whether it sends, or does anything else to the world."""
    return isinstance(step, SendStep | EffectStep)


class Standing(StrEnum):
    KEPT = "kept"  # done in this chain: not repeated
    RESENT = "resent"  # done in this chain, and to be done again because somebody asks for exactly that
    TO_DO = "to_do"
    POSSIBLE = "possible"  # to be done, if the run comes this way
    UNCERTAIN = "uncertain"  # nobody knows whether it was done: the run parks there


@dataclass(frozen=True)
class Past:
    """What a run of the chain did at a place. Not `certain`: it may have been done."""

    run_id: UUID
    certain: bool
    at: datetime
    reason: str | None = None


@dataclass(frozen=True)
class Ahead:
    """One effect ahead of a replay. `past`: why it is not to do."""

    step_id: str
    visit: int
    standing: Standing
    past: Past | None = None


def forecast(
    definition: Definition, step_id: str, visits: Mapping[str, int], pasts: Mapping[Place, Past], resend: frozenset[str] = frozenset()
) -> list[Ahead]:
    """What becomes of every effect from `step_id` on, the nearest first. `visits`: as `visits_before` says."""
    certain = on_every_way(definition, step_id)
    found: list[Ahead] = []
    for each in steps_ahead(definition, step_id):
        if has_effect(definition.steps[each]):
            found += _at(each, visits.get(each, 0) + 1, pasts, each in resend, each in certain, each in definition.looping)
    return found


def _at(step_id: str, visit: int, pasts: Mapping[Place, Past], resend: bool, certain: bool, loops: bool) -> Iterator[Ahead]:
    """One effect, or, where a loop has done several, those and the next."""
    past = pasts.get((step_id, visit))
    if resend and past is not None:
        yield Ahead(step_id, visit, Standing.RESENT, past)
    elif past is None:
        yield Ahead(step_id, visit, Standing.TO_DO if certain else Standing.POSSIBLE)
    elif not past.certain:
        yield Ahead(step_id, visit, Standing.UNCERTAIN, past)
    else:
        yield Ahead(step_id, visit, Standing.KEPT, past)
        if loops:
            yield from _at(step_id, visit + 1, pasts, False, False, True)


def counts(ahead: Sequence[Ahead]) -> dict[str, int]:
    """How many of each standing, zeros included."""
    found = Counter(each.standing for each in ahead)
    return {str(standing): found[standing] for standing in Standing}


def better(one: Past | None, other: Past) -> Past:
    """Of two runs' deeds at one place the one that counts: what was certainly done, and of two such the first."""
    if one is None or (other.certain, -other.at.timestamp()) > (one.certain, -one.at.timestamp()):
        return other
    return one
