"""quiet-hours: is it a permitted hour where each contact is?"""

from collections.abc import Callable
from typing import Any

from temporalio import activity

from activities.consent import judgements, question
from activities.contracts.sending import Judgement
from activities.contracts.steps import StepVisit, VisitBatch
from activities.heartbeat import heartbeating
from activities.versions import Versions
from models.domain.decision import Decision, HourFacts, decide_hours
from models.domain.journey.definition import Definition, SendStep
from models.domain.quiet_hours import choose_zone, read_window
from models.store import decisions
from models.store.eligibility import Places, load_places
from models.store.session import Database


class QuietHoursActivities:
    def __init__(self, database: Database, versions: Versions) -> None:
        self.database = database
        self.versions = versions

    def methods(self) -> list[Callable[..., Any]]:
        return [self.check_quiet_hours]

    @activity.defn(name="check_quiet_hours")
    async def check_quiet_hours(self, batch: VisitBatch) -> list[Judgement]:
        """Each decision is recorded with zone and window; holds and refusals enter the audit chain.

        The hour is that of `batch.now`, the workflow's clock. Safe to run twice: (run, step, visit, check, round) is
        unique, and the answer recorded first stands.
        """
        async with heartbeating(), self.database.organization(batch.scope.organization_id) as session:
            definition = await self.versions.definition(session, batch.scope.version_id)
            places = await load_places(session, [visit.contact_id for visit in batch.visits])
            decided = [(question(visit, "quiet_hours"), _decide(visit, definition, places, batch)) for visit in batch.visits]
            stored = await decisions.record(session, decided, batch.now)
        return judgements(batch.visits, stored)


def _decide(visit: StepVisit, definition: Definition, places: Places, batch: VisitBatch) -> Decision:
    step = definition.step(visit.step_id, SendStep)
    zone = choose_zone(places.timezones.get(visit.contact_id), places.organization_timezone)
    return decide_hours(
        HourFacts(step.channel, step.purpose, read_window(places.quiet_hours, step.channel), zone, step.in_quiet_hours == "drop"), batch.now
    )
