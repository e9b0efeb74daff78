"""Activities under their contract names that answer from a script and remember what they were asked."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.contracts.braking import BrakingNotice, BrakingRef
from activities.contracts.campaign import AudiencePages, CampaignPlan, CampaignProgress, CampaignRef, Dawn, Occurrences, PageRange
from activities.contracts.control import Control, ControlPage, ControlTargets, WorkflowPage
from activities.contracts.moves import HandOver, PlanPage, PlanPageTold, PlanProgress, PlanRef
from activities.contracts.operations import OperationEnd, OperationPage, OperationPageDone, OperationProgress
from activities.contracts.payload import Scope
from activities.contracts.reconciling import Reconcile, Reconciled
from activities.contracts.recording import AuditBatch, Transition
from activities.contracts.routing import Routed, Routing
from activities.contracts.sending import Judgement, SendOutcome, SendResult
from activities.contracts.steps import StepAnswer, StepVisit, VisitBatch
from models.domain.decision import Outcome
from models.tables.base import new_id


class Fakes:
    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.batches: dict[str, list[int]] = {}
        self.sent: list[StepVisit] = []
        self.transitions: list[Transition] = []
        self.consent: Callable[[StepVisit], str | None] = lambda visit: None
        self.hold: Callable[[StepVisit, datetime], datetime | None] = lambda visit, now: None
        self.outcome: Callable[[StepVisit], SendOutcome] = lambda visit: SendOutcome.ACCEPTED
        self.page_size = 200
        self.words: list[str] = []  # what the control workflow was told, in order
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.reason: str | None = None  # of every send
        self.ask_again_at: datetime | None = None  # what every send answers
        self.handed: list[HandOver] = []
        self.may_hand_over = asyncio.Event()
        self.may_hand_over.set()
        self.told: list[tuple[int, str | None]] = []  # passes and pages of a publish plan
        self.busy_for = 0  # passes after which a publish plan is not finished
        self.branch: Callable[[StepVisit], int | None] = lambda visit: None
        self.answer: Callable[[str, StepVisit], StepAnswer] = lambda question, visit: StepAnswer(run_id=visit.run_id)
        self.looks: list[timedelta | None] = []  # after how long a scheduled campaign is to be looked at next
        self.looked: list[datetime] = []  # when it was
        self.occurrences = 2
        self.notices: list[timedelta | None] = [None]  # after how long the mail about a braking is tried again
        self.notified: list[tuple[int, datetime]] = []  # the tries before, and when
        self.records_can_be_read = True
        self.may_answer = asyncio.Event()  # questions of waits
        self.may_answer.set()
        self.hopeless = False  # whether waits can be opened at all
        self.slow_records: list[asyncio.Event] = []  # what the first writes wait for

    def all(self) -> list[Callable[..., Any]]:
        return [
            *(self.check_consent, self.check_quiet_hours, self.choose_branches, self.send_messages, self.record_audit),
            *(self.plan_waits, self.open_waits, self.close_waits, self.perform_steps, self.route_events),
            *(self.plan_campaign, self.snapshot_audience, self.start_pages, self.finish_campaign),
            *(self.make_occurrences, self.start_occurrences),
            *(self.apply_control, self.controlled_workflows, self.signal_workflows),
            *(self.hand_over_runs, self.tell_moves, self.finish_plan),
            *(self.control_page, self.set_variables_page, self.finish_operation),
            *(self.hold_braked, self.notify_of_braking),
            *(self.compare_workflows, self.compare_records, self.archive_histories),
        ]

    def _count(self, name: str, size: int) -> None:
        self.calls[name] += 1
        self.batches.setdefault(name, []).append(size)

    @activity.defn(name="check_consent")
    async def check_consent(self, batch: VisitBatch) -> list[Judgement]:
        self._count("check_consent", len(batch.visits))
        return [self._judge(visit, self.consent(visit)) for visit in batch.visits]

    @staticmethod
    def _judge(visit: StepVisit, refusal: str | None) -> Judgement:
        return Judgement(run_id=visit.run_id, verdict=Outcome.REFUSE if refusal else Outcome.SEND, reason=refusal)

    @activity.defn(name="check_quiet_hours")
    async def check_quiet_hours(self, batch: VisitBatch) -> list[Judgement]:
        self._count("check_quiet_hours", len(batch.visits))
        answers = []
        for visit in batch.visits:
            until = self.hold(visit, batch.now)
            verdict = Outcome.HOLD if until else Outcome.SEND
            answers.append(Judgement(run_id=visit.run_id, verdict=verdict, reason="quiet_hours" if until else None, hold_until=until))
        return answers

    @activity.defn(name="choose_branches")
    async def choose_branches(self, batch: VisitBatch) -> list[StepAnswer]:
        self._count("choose_branches", len(batch.visits))
        return [StepAnswer(run_id=visit.run_id, index=self.branch(visit)) for visit in batch.visits]

    def _answers(self, question: str, batch: VisitBatch) -> list[StepAnswer]:
        self._count(question, len(batch.visits))
        return [self.answer(question, visit) for visit in batch.visits]

    @activity.defn(name="plan_waits")
    async def plan_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        answers = self._answers("plan_waits", batch)  # by what it has read
        await self.may_answer.wait()
        return answers

    @activity.defn(name="open_waits")
    async def open_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        answers = self._answers("open_waits", batch)
        await self.may_answer.wait()
        if self.hopeless:
            raise ApplicationError("there is no such version", type="NotFound")
        return answers

    @activity.defn(name="close_waits")
    async def close_waits(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._answers("close_waits", batch)

    @activity.defn(name="perform_steps")
    async def perform_steps(self, batch: VisitBatch) -> list[StepAnswer]:
        return self._answers("perform_steps", batch)

    @activity.defn(name="route_events")
    async def route_events(self, routing: Routing) -> Routed:
        self._count("route_events", 1)
        return Routed(more=self.calls["route_events"] == 1, stuck=self.calls["route_events"] == 2)

    @activity.defn(name="send_messages")
    async def send_messages(self, batch: VisitBatch) -> list[SendResult]:
        self._count("send_messages", len(batch.visits))
        await self.may_send.wait()
        results = []
        for visit in batch.visits:
            outcome = self.outcome(visit)
            if outcome is SendOutcome.ACCEPTED:
                self.sent.append(visit)
            again_at = self.ask_again_at
            results.append(SendResult(run_id=visit.run_id, outcome=outcome, reason=self.reason, retry_at=again_at, delivery_id=new_id()))
        return results

    @activity.defn(name="record_audit")
    async def record_audit(self, batch: AuditBatch) -> None:
        self._count("record_audit", len(batch.transitions))
        if self.calls["record_audit"] <= len(self.slow_records):
            await self.slow_records[self.calls["record_audit"] - 1].wait()
        self.transitions += batch.transitions

    @activity.defn(name="plan_campaign")
    async def plan_campaign(self, campaign: CampaignRef) -> CampaignPlan:
        assert campaign.now is not None
        after = self.looks[len(self.looked)]
        self.looked.append(campaign.now)
        return CampaignPlan(look_at=None if after is None else campaign.now + after)

    @activity.defn(name="make_occurrences")
    async def make_occurrences(self, dawn: Dawn) -> Occurrences:
        self._count("make_occurrences", 1)
        scope = Scope(organization_id=dawn.organization_id, journey_id=new_id(), version_id=new_id(), campaign_id=dawn.campaign_id)
        return Occurrences(scopes=[scope] * self.occurrences)

    @activity.defn(name="start_occurrences")
    async def start_occurrences(self, made: Occurrences) -> None:
        self._count("start_occurrences", len(made.scopes))

    @activity.defn(name="snapshot_audience")
    async def snapshot_audience(self, campaign: CampaignRef) -> AudiencePages:
        scope = Scope(organization_id=campaign.organization_id, journey_id=new_id(), version_id=new_id(), campaign_id=campaign.campaign_id)
        return AudiencePages(scope=scope, runs=30 * self.page_size, pages=30)

    @activity.defn(name="start_pages")
    async def start_pages(self, pages: PageRange) -> None:
        self._count("start_pages", pages.end - pages.first)

    @activity.defn(name="finish_campaign")
    async def finish_campaign(self, campaign: CampaignRef) -> CampaignProgress:
        self._count("finish_campaign", 1)
        return CampaignProgress(finished=self.calls["finish_campaign"] > 3)

    @activity.defn(name="apply_control")
    async def apply_control(self, control: Control) -> bool:
        self.words.append(control.command)
        return True

    @activity.defn(name="controlled_workflows")
    async def controlled_workflows(self, page: ControlPage) -> WorkflowPage:
        return WorkflowPage(workflow_ids=["one", "two"]) if page.after else WorkflowPage(workflow_ids=["zero"], after="zero")

    @activity.defn(name="signal_workflows")
    async def signal_workflows(self, targets: ControlTargets) -> None:
        self._count("signal_workflows", len(targets.workflow_ids))

    @activity.defn(name="hand_over_runs")
    async def hand_over_runs(self, handed: HandOver) -> None:
        self._count("hand_over_runs", len(handed.runs))
        await self.may_hand_over.wait()
        self.handed.append(handed)

    @activity.defn(name="tell_moves")
    async def tell_moves(self, page: PlanPage) -> PlanPageTold:
        self.told.append((page.plan.passes, page.after))
        return PlanPageTold(after={None: "one", "one": "two"}.get(page.after))

    @activity.defn(name="finish_plan")
    async def finish_plan(self, plan: PlanRef) -> PlanProgress:
        self._count("finish_plan", 1)
        return PlanProgress(finished=self.calls["finish_plan"] > self.busy_for)

    @activity.defn(name="control_page")
    async def control_page(self, page: OperationPage) -> OperationPageDone:
        self.told.append((page.operation.passes, str(page.after)))
        return OperationPageDone(after={0: 300, 300: 600}.get(page.after))

    @activity.defn(name="set_variables_page")
    async def set_variables_page(self, page: OperationPage) -> OperationPageDone:
        self._count("set_variables_page", 1)
        return OperationPageDone()

    @activity.defn(name="finish_operation")
    async def finish_operation(self, end: OperationEnd) -> OperationProgress:
        self._count("finish_operation", 1)
        return OperationProgress(finished=end.last or self.calls["finish_operation"] > self.busy_for)

    @activity.defn(name="hold_braked")
    async def hold_braked(self, braking: BrakingRef) -> None:
        self._count("hold_braked", 1)

    @activity.defn(name="notify_of_braking")
    async def notify_of_braking(self, braking: BrakingRef) -> BrakingNotice:
        self._count("notify_of_braking", 1)
        assert braking.now is not None
        self.notified.append((braking.tries, braking.now))
        after = self.notices[len(self.notified) - 1]
        return BrakingNotice(look_at=None if after is None else braking.now + after)

    @activity.defn(name="compare_workflows")
    async def compare_workflows(self, reconcile: Reconcile) -> Reconciled:
        self._count("compare_workflows", 1)
        return Reconciled(opened=2, lost=30)

    @activity.defn(name="compare_records")
    async def compare_records(self, reconcile: Reconcile) -> Reconciled:
        self._count("compare_records", 1)
        if not self.records_can_be_read:
            raise ApplicationError("the records could not be read", type="NotReconciled")
        return Reconciled(opened=1, resolved=1)

    @activity.defn(name="archive_histories")
    async def archive_histories(self, reconcile: Reconcile) -> Reconciled:
        self._count("archive_histories", 1)
        return Reconciled(archived=7)

    def phases(self) -> dict[UUID, str]:
        """The projection: the phase after each run's last transition."""
        newest: dict[UUID, Transition] = {}
        for transition in self.transitions:
            if transition.run_id not in newest or newest[transition.run_id].sequence < transition.sequence:
                newest[transition.run_id] = transition
        return {run_id: transition.phase for run_id, transition in newest.items()}

    def kinds(self, run_id: UUID) -> list[str]:
        mine = sorted((each for each in self.transitions if each.run_id == run_id), key=lambda each: each.sequence)
        return [each.kind for each in mine]


TOMORROW = timedelta(days=1)
