"""`enter_journey`: the contact is to enter another journey, by that one's own rules."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from activities.contracts.steps import StepVisit
from activities.effects.effect import Answers, Build, EffectTools, Work, claims
from models.domain.journey.steps.enter_journey import EnterJourneyStep
from models.store import effects, entries, journey_versions, run_variables
from models.store.effects import Claimed, Settlement
from models.store.entries import Proposal
from models.store.session import OrganizationSession


class EnterJourney:
    """Whether the contact may enter is decided where everybody's entries are: `GET /v1/entries` shows it, refusals included."""

    def __init__(self, tools: EffectTools) -> None:
        self.tools = tools

    async def perform(self, work: Work) -> Answers:
        """Claim and proposal are one transaction, in a constant number of statements; routing, which is woken afterwards, decides.

        Safe to run twice: only what this transaction claims is proposed, and a proposal counts once by the claim's id.
        """
        async with self.tools.database.organization(work.scope.organization_id) as session:
            visits = claims(work.visits)
            claimed = await effects.claim(session, "enter_journey", visits)
            standings = await effects.standings(session, "enter_journey", [one for one in visits if one.run_id not in claimed])
            mine = [visit for visit in work.visits if visit.run_id in claimed]
            proposals = await self._proposals(session, work, mine, claimed)
            await entries.propose(session, list(proposals.values()))
            settlements = [_settlement(claimed[visit.run_id], proposals.get(visit.run_id)) for visit in mine]
            await effects.settle(session, settlements)
        return work.answered(standings, settlements)

    async def _proposals(
        self, session: OrganizationSession, work: Work, visits: Sequence[StepVisit], claimed: Mapping[UUID, Claimed]
    ) -> dict[UUID, Proposal]:
        """By run. A journey that has no version (any more) is entered by nobody."""
        steps = {visit.run_id: work.step(visit, EnterJourneyStep) for visit in visits}
        newest = await journey_versions.newest_ids(session, sorted({step.journey_id for step in steps.values()}))
        variables = await run_variables.variables_of(session, [visit.run_id for visit in visits])
        return {
            visit.run_id: _proposal(visit, step, newest[step.journey_id], variables.get(visit.run_id, {}), claimed[visit.run_id].id)
            for visit in visits
            if (step := steps[visit.run_id]).journey_id in newest
        }


def _proposal(visit: StepVisit, step: EnterJourneyStep, version_id: UUID, variables: Mapping[str, Any], source_id: UUID) -> Proposal:
    return Proposal(
        journey_id=step.journey_id,
        version_id=version_id,
        contact_id=visit.contact_id,
        source="journey",
        source_id=source_id,
        key=step.key,
        variables={name: variables[mine] for name, mine in step.variables.items() if mine in variables},
        parent_run_id=visit.run_id,
    )


def _settlement(claimed: Claimed, proposal: Proposal | None) -> Settlement:
    if proposal is None:
        return Settlement(claimed, "refused", "journey_unpublished")
    return Settlement(claimed, "done", details={"journey_id": str(proposal.journey_id)})


EFFECTS: Mapping[str, Build] = {"enter_journey": EnterJourney}
