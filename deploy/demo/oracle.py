"""Who should get which mail, worked out from the demo's file alone, and whether that is what happened. Pure.

Nothing of the product is used here: what it did is judged by another reading of the same facts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deploy.demo.people import Person

PAYING = {"team": "Team", "business": "Business"}


class Mail(NamedTuple):
    """One message as its recipient sees it; the address in lower case."""

    address: str
    subject: str


class Refusal(NamedTuple):
    external_id: str
    step: str
    reason: str


@dataclass(frozen=True)
class Expectation:
    """`mails` with the step that sends each, and everything that must not be sent, with the reason."""

    mails: Mapping[Mail, str]
    refusals: frozenset[Refusal]


def expect(people: Iterable[Person]) -> Expectation:
    """What the journey of `deploy.demo.journey` must do for these people."""
    mails: dict[Mail, str] = {}
    refusals = set()
    for person in people:
        for step, topic, subject in _route(person):
            reason = _refusal(person, topic)
            if reason is None:
                mails[Mail(person.email, subject)] = step
            else:
                refusals.add(Refusal(person.external_id, step, reason))
    return Expectation(mails, frozenset(refusals))


def _route(person: Person) -> list[tuple[str, str, str]]:
    """The sending steps that the person comes to: step, topic and the subject written to this person."""
    name = person.first_name
    second = (
        ("whats_new", "product_news", f"What is new on your {PAYING[person.plan]} plan")
        if person.plan in PAYING
        else ("tips", "newsletter", f"{name or 'Hello'}, three tips to begin with")
    )
    return [
        ("welcome", "newsletter", f"Welcome, {name or 'friend'}"),
        second,
        ("invitation", "events", f"You are invited, {name}" if name else "You are invited"),
    ]


def _refusal(person: Person, topic: str) -> str | None:
    if not person.email:
        return "no_address"
    if person.opted_out:
        return "suppressed"
    return {"yes": None, "back": None, "left": "consent_withdrawn", "": "no_consent"}[person.answer(topic)]


@dataclass(frozen=True)
class Comparison:
    """What the inbox holds against what it should hold, in messages; refusals in (person, step)."""

    messages: int
    expected: int
    missing: int
    duplicates: int
    unexpected: int  # to somebody who must not get it, or saying something else
    refusals_missing: int
    refusals_unexpected: int
    by_step: Mapping[str, int]

    @property
    def holds(self) -> bool:
        return not (self.missing or self.duplicates or self.unexpected or self.refusals_missing or self.refusals_unexpected)


def compare(expectation: Expectation, inbox: Sequence[Mail], refused: Iterable[Refusal]) -> Comparison:
    """`inbox` is everything that was received, `refused` everything that the record says was not sent."""
    found, recorded = Counter(inbox), set(refused)
    by_step: Counter[str] = Counter()
    for mail, count in found.items():
        by_step[expectation.mails.get(mail, "unexpected")] += count
    return Comparison(
        messages=len(inbox),
        expected=len(expectation.mails),
        missing=sum(mail not in found for mail in expectation.mails),
        duplicates=sum(count - 1 for mail, count in found.items() if mail in expectation.mails),
        unexpected=by_step["unexpected"],
        refusals_missing=len(expectation.refusals - recorded),
        refusals_unexpected=len(recorded - expectation.refusals),
        by_step=by_step,
    )
