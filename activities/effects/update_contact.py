"""`update_contact`: attributes are set, tags added and removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activities.contracts.steps import StepVisit
from activities.effects.effect import CONTACT_GONE, Answers, Build, EffectTools, Work, claims
from models.domain.audit import NewEntry
from models.domain.journey.steps.update_contact import Refused, UpdateContactStep
from models.store import audit, contacts, effects
from models.store.contacts import Profile
from models.store.effects import Claimed, Settlement
from models.store.session import OrganizationSession


@dataclass(frozen=True)
class _Done:
    settlement: Settlement
    entry: NewEntry | None = None  # None: nothing has another value now


class UpdateContact:
    def __init__(self, tools: EffectTools) -> None:
        self.tools = tools

    async def perform(self, work: Work) -> Answers:
        """Claim, change and audit entry are one transaction, in a constant number of statements.

        Safe to run twice: only what this transaction claims is changed; another attempt waits for its end, and then finds it done.
        """
        async with self.tools.database.organization(work.scope.organization_id) as session:
            visits = claims(work.visits)
            claimed = await effects.claim(session, "update_contact", visits)
            standings = await effects.standings(session, "update_contact", [one for one in visits if one.run_id not in claimed])
            done = await self._apply(session, work, claimed)
            await effects.settle(session, [one.settlement for one in done])
            await audit.append(session, [one.entry for one in done if one.entry is not None])  # last: locks the chain's head
        return work.answered(standings, [one.settlement for one in done])

    async def _apply(self, session: OrganizationSession, work: Work, claimed: Mapping[Any, Claimed]) -> list[_Done]:
        """One after the other, so that two runs of one contact both have their say; written at once."""
        mine = {visit.run_id: visit.contact_id for visit in work.visits if visit.run_id in claimed}
        profiles = await contacts.lock_profiles(session, mine)
        schema = await contacts.attribute_schema(session)
        done = [
            _change(work, visit, claimed[visit.run_id], profiles.by_contact.get(visit.contact_id), profiles.variables, schema)
            for visit in work.visits
            if visit.run_id in claimed
        ]
        await contacts.save_profiles(session, [one for one in profiles.by_contact.values() if one.changed])
        return done


def _change(
    work: Work, visit: StepVisit, claimed: Claimed, profile: Profile | None, variables: Mapping[Any, Any], schema: Mapping[str, Any]
) -> _Done:
    """The profile, in memory, is as the step says."""
    step = work.step(visit, UpdateContactStep)
    if profile is None:
        return _Done(Settlement(claimed, "refused", CONTACT_GONE))
    try:
        attributes, tags = step.new_attributes(variables[visit.run_id], schema), step.new_tags(profile.tags)
    except Refused as refused:
        return _Done(Settlement(claimed, "refused", refused.reason))
    fields = profile.set(attributes, tags)
    return _Done(Settlement(claimed, "done", details={"fields": fields}), _entry(work, visit, fields) if fields else None)


def _entry(work: Work, visit: StepVisit, fields: list[str]) -> NewEntry:
    """As when somebody changes a contact over the API, and which run did."""
    of = {"journey_id": work.scope.journey_id, "version_id": work.scope.version_id, "run_id": visit.run_id}
    details = {"fields": fields, "step_id": visit.step_id, "visit": visit.visit, **{name: str(id) for name, id in of.items()}}
    return NewEntry("contact.changed", "contact", str(visit.contact_id), details=details)


EFFECTS: Mapping[str, Build] = {"update_contact": UpdateContact}
