"""consent-check: may these messages be sent as far as consent, suppression, topic and address say?"""

from collections.abc import Callable, Sequence
from typing import Any

from temporalio import activity

from activities.contracts.sending import Judgement
from activities.contracts.steps import StepVisit, VisitBatch
from activities.heartbeat import heartbeating
from activities.replay_dedup import kept_messages
from activities.versions import Versions
from models.domain.decision import Outcome, decide_consent
from models.domain.journey.definition import SendStep
from models.domain.journey.interpreter import times_asked
from models.settings import Settings
from models.store import audit, decisions
from models.store.decisions import Question, StoredDecision
from models.store.eligibility import Asked, load_consent_facts
from models.store.session import Database


class ConsentActivities:
    def __init__(self, database: Database, settings: Settings, versions: Versions) -> None:
        self.database = database
        self.versions = versions
        self.suppression_key = settings.derive_key("suppressions")

    def methods(self) -> list[Callable[..., Any]]:
        return [self.check_consent]

    @activity.defn(name="check_consent")
    async def check_consent(self, batch: VisitBatch) -> list[Judgement]:
        """Each decision is recorded with the facts it rests on; refusals enter the audit chain.

        What a replay finds sent already is answered so, and nothing is decided about it. Safe to run twice: (run, step, visit, check,
        round) is unique, and the answer recorded first stands.
        """
        async with heartbeating(), self.database.organization(batch.scope.organization_id) as session:
            definition = await self.versions.definition(session, batch.scope.version_id)
            kept, entries = await kept_messages(session, batch, definition)
            visits = [visit for visit in batch.visits if visit.run_id not in kept]
            asked = [_asked(visit, definition.step(visit.step_id, SendStep)) for visit in visits]
            facts = await load_consent_facts(session, asked, self.suppression_key)
            decided = [
                (question(visit, "consent"), decide_consent(facts[visit.run_id], batch.now, times_asked(visit.round))) for visit in visits
            ]
            stored = await decisions.record(session, decided, batch.now)
            if entries:
                await audit.append(session, entries)
        answers = [Judgement(run_id=run_id, verdict=Outcome.HOLD, kept=result) for run_id, result in kept.items()]
        return [*judgements(visits, stored), *answers]


def _asked(visit: StepVisit, step: SendStep) -> Asked:
    return Asked(visit.run_id, visit.contact_id, step.channel, step.purpose, step.topic_id)


def question(visit: StepVisit, check: str) -> Question:
    return Question(visit.run_id, visit.contact_id, visit.step_id, visit.visit, check, visit.round)


def judgements(visits: Sequence[StepVisit], stored: dict[Any, StoredDecision]) -> list[Judgement]:
    """The stored decisions as answers, in the order asked."""
    answers = [stored[visit.run_id] for visit in visits]
    return [
        Judgement(
            run_id=answer.run_id,
            verdict=answer.outcome,
            reason=answer.reason,
            hold_until=answer.hold_until,
            allowed_until=answer.allowed_until,
        )
        for answer in answers
    ]
