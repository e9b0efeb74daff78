"""`subscribe` and `unsubscribe`: a line in the consent ledger."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from activities.contracts.steps import StepVisit
from activities.effects.effect import CONTACT_GONE, Answers, Build, EffectTools, Work, claims
from models.domain.audit import SYSTEM
from models.domain.decision import Reason
from models.domain.journey.steps.subscription import SubscribeStep, UnsubscribeStep
from models.store import consents, effects, journey_versions
from models.store.consents import NewConsent, Status, Wish, WishFacts
from models.store.effects import Claimed, Settlement
from models.store.session import OrganizationSession

Step = SubscribeStep | UnsubscribeStep
METHOD = "journey"


class _Subscription:
    """Both kinds; they differ in what the line says."""

    kind: str
    status: Status
    step: type[SubscribeStep] | type[UnsubscribeStep]

    def __init__(self, tools: EffectTools) -> None:
        self.tools = tools

    async def perform(self, work: Work) -> Answers:
        """Claim, line and audit entry are one transaction, in a constant number of statements.

        Safe to run twice: only what this transaction claims gets a line; another attempt waits for its end, and then finds it done.
        """
        async with self.tools.database.organization(work.scope.organization_id) as session:
            visits = claims(work.visits)
            claimed = await effects.claim(session, self.kind, visits)
            standings = await effects.standings(session, self.kind, [one for one in visits if one.run_id not in claimed])
            mine = [visit for visit in work.visits if visit.run_id in claimed]
            refusals = await self._refusals(session, work, mine)
            settlements = [_settlement(claimed[visit.run_id], refusals.get(visit.run_id)) for visit in mine]
            await effects.settle(session, settlements)
            await self._write(session, work, [visit for visit in mine if visit.run_id not in refusals])
        return work.answered(standings, settlements)

    async def _refusals(self, session: OrganizationSession, work: Work, visits: Sequence[StepVisit]) -> dict[UUID, str]:
        wishes = [_wish(visit, self._step(work, visit)) for visit in visits]
        facts = await consents.load_wish_facts(session, wishes)
        found = {run_id: self.refusal(known) for run_id, known in facts.items()}
        return {run_id: reason for run_id, reason in found.items() if reason is not None}

    def refusal(self, facts: WishFacts) -> str | None:
        """Why no line may be written."""
        return None if facts.contact_exists else CONTACT_GONE

    async def _write(self, session: OrganizationSession, work: Work, visits: Sequence[StepVisit]) -> None:
        if visits:
            source = await journey_versions.title(session, work.scope.version_id)
            await consents.record(session, [self._line(work, visit, source) for visit in visits])  # last: locks the audit chain's head

    def _line(self, work: Work, visit: StepVisit, source: str) -> NewConsent:
        step = self._step(work, visit)
        ids: Mapping[str, UUID] = {"journey_id": work.scope.journey_id, "version_id": work.scope.version_id, "run_id": visit.run_id}
        return NewConsent(
            contact_id=visit.contact_id,
            topic_id=step.topic_id,
            channel=step.channel,
            status=self.status,
            method=METHOD,
            source=source,
            evidence={"step": visit.step_id, "text": step.evidence, **{name: str(id) for name, id in ids.items()}},
            actor=SYSTEM,
            occurred_at=None,  # just now, by the one clock of all lines: hosts may be ahead of each other
        )

    def _step(self, work: Work, visit: StepVisit) -> Step:
        return work.step(visit, self.step)


class Subscribe(_Subscription):
    """Consent is not taken from somebody who has just left: a withdrawal since the run began, other than by a journey's step, stands
    against what happened before it. A suppressed address stays suppressed."""

    kind = "subscribe"
    status = "granted"
    step = SubscribeStep

    def refusal(self, facts: WishFacts) -> str | None:
        if facts.contact_exists and facts.topic_archived:
            return Reason.TOPIC_ARCHIVED
        if facts.withdrawn_since:
            return Reason.CONSENT_WITHDRAWN
        return super().refusal(facts)


class Unsubscribe(_Subscription):
    kind = "unsubscribe"
    status = "withdrawn"
    step = UnsubscribeStep


def _wish(visit: StepVisit, step: Step) -> Wish:
    return Wish(visit.run_id, visit.contact_id, step.topic_id, step.channel)


def _settlement(claimed: Claimed, refusal: str | None) -> Settlement:
    return Settlement(claimed, "done") if refusal is None else Settlement(claimed, "refused", refusal)


EFFECTS: Mapping[str, Build] = {"subscribe": Subscribe, "unsubscribe": Unsubscribe}
