"""Replaying a run from a step: how often each step counts as visited, and what is kept, to be done and uncertain from there on. Pure.

A chain is a run, its replay, the replay's replay, and so on: every run is replayed at most once. What any of them has done at a
step, for a visit, is done for all of them.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from models.domain.journey.definition import Definition, SendStep, targets
from models.domain.journey.run import ANY_STEP
from models.domain.journey.steps.base import StepModel
from models.domain.journey.steps.effect import EffectStep

Place = tuple[str, int]  # step and visit
REPLAYED = "replayed"  # why the old run ends, and why what it was about to do was given up
Act = tuple[str, str, int]  # kind of step, step and visit: what another version does at a place of the same name is another act


@dataclass(frozen=True)
class Arrival:
    """That a run came to a step for the `visit`-th time; `sequence` of the first line of its record that says so."""

    step_id: str
    visit: int
    sequence: int


@dataclass(frozen=True)
class Remark:
    """A line about a step other than an arrival: jumped, step_cancelled, step_restored, or skipped because it had been cancelled."""

    kind: str
    sequence: int
    step_id: str = ""


@dataclass(frozen=True)
class Begun:
    """What a run counts as having been through when it begins; as in `RunState`. `visits_before`: the most visits of any step before its
    last jump. `skips`: steps that somebody has cancelled for it."""

    visits: Mapping[str, int] = field(default_factory=dict)
    visits_before: int = 0
    skips: tuple[str, ...] = ()

    def next_visit(self, step_id: str) -> int:
        return self.visits.get(step_id, self.visits_before) + 1


@dataclass(frozen=True)
class Trip:
    """One run of a chain: what it began with, and what its record says of it."""

    run_id: UUID
    begun: Begun = Begun()
    arrivals: Sequence[Arrival] = ()
    remarks: Sequence[Remark] = ()


def begin_at(chain: Sequence[Trip], step_id: str, looping: frozenset[str], *, named: bool = True) -> Begun:
    """With what a run begins that is to come to `step_id` once more as when the chain, newest run first, last did: so it meets what was
    done then. `looping`: of the version that it goes on. Steps that somebody has cancelled stay cancelled, but for `step_id` itself
    if somebody has `named` it. Where nobody has, the newest run stands there: perhaps, beneath a pause, without having begun there, and
    then it has done nothing yet of this visit.

    A step that it can pass but that cannot be passed twice counts as not visited, whatever another version's order of steps was: what
    was done there is kept. A later jump counts on from the highest visit of the whole chain: what a person wants anew is done anew.
    """
    begun = _as_when_last_there(chain, step_id, looping, named)
    most = max((_highest(trip) for trip in chain), default=0)
    known = most <= max((begun.visits_before + 1, *begun.visits.values()))
    return begun if known else replace(begun, visits={**begun.visits, ANY_STEP: most})


def _as_when_last_there(chain: Sequence[Trip], step_id: str, looping: frozenset[str], named: bool) -> Begun:
    wanted = {step_id} if named else set()
    met = () if chain and not named and _stands_still(chain[0], step_id) else chain
    for number, trip in enumerate(met):
        last = max((each for each in trip.arrivals if each.step_id == step_id), key=lambda each: each.sequence, default=None)
        if last is not None:
            before = _counts(trip, last.sequence)
            visits = {step: visits for step, visits in before.visits.items() if step in looping} | {step_id: last.visit - 1}
            skips = _skips(chain[: number + 1], last.sequence) - wanted
            return Begun(_above(visits, before.visits_before), before.visits_before, tuple(sorted(skips)))
    if not chain:
        return Begun()
    before = _counts(chain[0], None)
    visits = {step: visits for step, visits in before.visits.items() if step in looping}
    skips = _skips(chain[:1], None) - wanted
    return Begun(_above(visits, before.visits_before), before.visits_before, tuple(sorted(skips)))


def _highest(trip: Trip) -> int:
    return max((trip.begun.visits_before, *trip.begun.visits.values(), *(each.visit for each in trip.arrivals)))


def _stands_still(trip: Trip, step_id: str) -> bool:
    """Whether the run has come to the step, and its record says nothing of that visit yet."""
    newest = max(trip.arrivals, key=lambda each: each.sequence, default=None)
    jumps = [each.sequence for each in trip.remarks if each.kind == "jumped"]
    return newest is not None and (newest.step_id != step_id or newest.sequence <= max(jumps, default=-1))


def _above(visits: Mapping[str, int], floor: int) -> dict[str, int]:
    return {step: count for step, count in visits.items() if count > floor}


def _counts(trip: Trip, before: int | None) -> Begun:
    """As it counted before that line of its record (None: at its end). A jump counts everything on from the highest so far."""
    counts, floor = dict(trip.begun.visits), trip.begun.visits_before
    jumps = [each.sequence for each in trip.remarks if each.kind == "jumped"]
    for sequence, arrival in sorted([(each.sequence, each) for each in trip.arrivals], key=lambda pair: pair[0]):
        if before is not None and sequence >= before:
            break
        while jumps and jumps[0] < sequence:
            floor, counts = max((floor + 1, *counts.values())), {}
            jumps.pop(0)
        counts[arrival.step_id] = max(counts.get(arrival.step_id, 0), arrival.visit)
    while jumps and (before is None or jumps[0] < before):
        floor, counts = max((floor + 1, *counts.values())), {}
        jumps.pop(0)
    return Begun(counts, floor)


def _skips(chain: Sequence[Trip], before: int | None) -> set[str]:
    """The steps that are cancelled for a run that comes back to where the last of these (the oldest) was before that line: what was left
    undone for that since is left undone again."""
    oldest, *_ = reversed(chain)
    skips = set(oldest.begun.skips)
    for trip in reversed(chain):
        for remark in sorted(trip.remarks, key=lambda each: each.sequence):
            if remark.kind == "step_cancelled":
                skips.add(remark.step_id)
            elif remark.kind == "step_restored" or (
                remark.kind == "skipped" and trip is oldest and (before is None or remark.sequence < before)
            ):
                skips.discard(remark.step_id)
    return skips


# --- what lies ahead -------------------------------------------------------------------------------------------------

NO_STEPS: frozenset[str] = frozenset()


def worn_out(definition: Definition, begun: Begun) -> frozenset[str]:
    """The steps at which the run exits, for it has come there as often as the journey allows; as the interpreter counts."""
    most = begun.visits_before + definition.max_visits
    return frozenset(step_id for step_id in definition.steps if begun.next_visit(step_id) > most)


def steps_ahead(definition: Definition, step_id: str, ends: frozenset[str] = NO_STEPS) -> list[str]:
    """The step and all that can be come to from it, the nearest first. None of `ends`: there the run exits."""
    found, waiting = dict.fromkeys({step_id} - ends), deque({step_id} - ends)
    while waiting:
        for target in targets(definition.steps[waiting.popleft()]):
            if target not in found and target not in ends:
                found[target] = None
                waiting.append(target)
    return list(found)


def on_every_way(definition: Definition, step_id: str, ends: frozenset[str] = NO_STEPS) -> frozenset[str]:
    """The steps that no way from `step_id` to an end goes round. `ends`: as in `steps_ahead`."""
    ahead = steps_ahead(definition, step_id, ends)
    return frozenset(each for each in ahead if each == step_id or not _ends_without(definition, step_id, each, ends))


def _ends_without(definition: Definition, step_id: str, avoided: str, ends: frozenset[str]) -> bool:
    seen, waiting = {step_id, avoided}, [step_id]
    while waiting:
        exits = [target for _, target in definition.steps[waiting.pop()].exits()]
        if not exits or None in exits or not ends.isdisjoint(exits):
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


class Deed(StrEnum):
    DONE = "done"
    UNCERTAIN = "uncertain"  # it may have been done
    NOT_DONE = "not_done"  # tried or refused, and certainly not done


@dataclass(frozen=True)
class Past:
    """What a run of the chain did at a place."""

    run_id: UUID
    deed: Deed
    at: datetime
    reason: str | None = None


@dataclass(frozen=True)
class Ahead:
    """One effect ahead of a replay. `past`: why it is not to do."""

    step_id: str
    visit: int
    standing: Standing
    past: Past | None = None


def met(pasts: Mapping[Act, Past], kind: str, step_id: str, visit: int, loops: bool) -> Past | None:
    """What the chain has done, or may have, of what a run is to do at this place by a step of this kind; None: nothing. A step of
    another kind, in another version, did something else. `models.store.kept` asks the same of the database.

    What was done for a later visit counts as well: a jump counts visits on, so that a run which begins before one comes to the same
    step with a lower number. Not where the step lies on a loop and something is known of exactly this visit.
    """
    here = pasts.get((kind, step_id, visit))
    if loops and here is not None:
        return None if here.deed is Deed.NOT_DONE else here
    later = [(act[2], past) for act, past in pasts.items() if act[:2] == (kind, step_id) and act[2] >= visit]
    done = [(past.deed is not Deed.DONE, number, past) for number, past in later if past.deed is not Deed.NOT_DONE]
    return min(done, key=lambda each: each[:2])[2] if done else None


def forecast(
    definition: Definition, step_id: str, begun: Begun, pasts: Mapping[Act, Past], resend: frozenset[str] = frozenset()
) -> list[Ahead]:
    """What becomes of every effect from `step_id` on, the nearest first. `begun`: as `begin_at` says. Steps that are cancelled do
    nothing, and nothing is done where the run has been as often as the journey allows, or behind it."""
    ends = worn_out(definition, begun)
    foresight = _Foresight(definition, begun, pasts, resend, on_every_way(definition, step_id, ends))
    found: list[Ahead] = []
    for each in steps_ahead(definition, step_id, ends):
        if has_effect(definition.steps[each]) and each not in begun.skips:
            found += foresight.at(each)
    return found


@dataclass(frozen=True)
class _Foresight:
    definition: Definition
    begun: Begun
    pasts: Mapping[Act, Past]
    resend: frozenset[str]
    certain: frozenset[str]

    def at(self, step_id: str) -> Iterator[Ahead]:
        """One effect, or, where a loop has done several, those and the next, as far as the journey lets a run come."""
        kind, loops, first = self.definition.steps[step_id].kind, step_id in self.definition.looping, self.begun.next_visit(step_id)
        for visit in range(first, self.begun.visits_before + self.definition.max_visits + 1):
            past, again = met(self.pasts, kind, step_id, visit, loops), visit > first
            if past is not None and step_id in self.resend and not again:
                yield Ahead(step_id, visit, Standing.RESENT, past)
            elif past is None:
                yield Ahead(step_id, visit, Standing.TO_DO if step_id in self.certain and not again else Standing.POSSIBLE)
            elif past.deed is Deed.UNCERTAIN:
                yield Ahead(step_id, visit, Standing.UNCERTAIN, past)
            else:
                yield Ahead(step_id, visit, Standing.KEPT, past)
                if loops:
                    continue
            return


def counts(ahead: Sequence[Ahead]) -> dict[str, int]:
    """How many of each standing, zeros included."""
    found = Counter(each.standing for each in ahead)
    return {str(standing): found[standing] for standing in Standing}


_RANK = {Deed.DONE: 2, Deed.UNCERTAIN: 1, Deed.NOT_DONE: 0}


def better(one: Past | None, other: Past) -> Past:
    """Of two runs' deeds at one place the one that counts: what was certainly done, and of two such the first."""
    if one is None or (_RANK[other.deed], -other.at.timestamp()) > (_RANK[one.deed], -one.at.timestamp()):
        return other
    return one
