"""Every activity: its name, input, output, timeouts, retry policy and task queue. Pure; workflows import only this.

Payloads hold opaque ids, times and codes. All times are aware UTC. Each activity takes a batch and answers per run,
is safe to run twice (its implementation's docstring says why), and raises only for faults of the whole batch
(database away): what becomes of one run is a value.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from temporalio import activity
from temporalio.common import Priority, RetryPolicy, SearchAttributeKey
from temporalio.workflow import ActivityConfig

from models.domain.journey.definition import Definition
from models.domain.journey.run import RunState


class Payload(BaseModel):
    """Evolves by additions with defaults only: a payload that fails validation would wedge its workflow.

    What a batch holds one of per run is a slotted dataclass instead, to the same rule: pydantic reads and writes it alike, and of
    hundreds of workflows whose batches wait for an activity a model per run would weigh ten times as much.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


class Scope(Payload):
    """Whose runs these are. The same for every run of a workflow."""

    organization_id: UUID
    journey_id: UUID
    version_id: UUID
    campaign_id: UUID | None = None
    on_error: Literal["park", "pause", "skip"] = "park"  # what a step that fails for good does to its run, or to the campaign
    replay: bool = False  # they take the place of other runs: what those have done is not repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class StepVisit:
    """One run at one step, for the `visit`-th time, asking for the `round`-th time."""

    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int = 1
    round: int = 0
    arrived_at: datetime | None = None  # at a step where time passes
    allowed_until: datetime | None = None  # what quiet-hours said: a send still queued then must ask again


class VisitBatch(Payload):
    scope: Scope
    now: datetime  # the workflow's clock: activities judge hours by it, so that virtual time works
    visits: Sequence[StepVisit]


class Verdict(StrEnum):
    SEND = "send"
    HOLD = "hold"
    REFUSE = "refuse"


class SendOutcome(StrEnum):
    """The taxonomy of DESIGN.md section 7, plus what our own last check says."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # consent or suppression changed between the check and the claim
    PAUSED = "paused"  # campaign, journey or organization was paused; nothing was sent; ask again after resuming
    THROTTLED = "throttled"  # wait until retry_at, then ask again
    TRANSIENT = "transient"  # certainly not sent; ask again at retry_at
    RECIPIENT_PERMANENT = "recipient_permanent"
    CONTENT_PERMANENT = "content_permanent"
    OPTED_OUT = "opted_out"
    CONNECTION_BROKEN = "connection_broken"
    GAVE_UP = "gave_up"  # certainly not sent, after MAXIMUM_TRIES transient answers: a person decides
    UNKNOWN = "unknown"  # may have been accepted: never sent again by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    run_id: UUID
    outcome: SendOutcome
    reason: str | None = None
    retry_at: datetime | None = None
    delivery_id: UUID | None = None
    kept_from: UUID | None = None  # the run of a replay's chain that had sent it before, or may have
    kept_at: datetime | None = None  # when that was


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The answer of consent-check or quiet-hours for one run."""

    run_id: UUID
    verdict: Verdict
    reason: str | None = None
    hold_until: datetime | None = None  # with HOLD
    allowed_until: datetime | None = None  # with SEND from quiet-hours: when the permitted hours end, None: never
    kept: SendResult | None = None  # there is nothing to ask: it was sent, or may have been, by the run that this one replays


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAnswer:
    """The answer to a step's question for one run; which fields count depends on the question.

    With `retry_at` it could not be answered now and is asked again then; with `failed` it never can, and a person decides;
    `reason` is the code of why.
    """

    run_id: UUID
    index: int | None = None  # of the way taken
    until: datetime | None = None  # when to wake
    refused: bool = False  # it was not done; the run goes on
    reason: str | None = None
    details: dict[str, Any] = field(default_factory=dict)  # ids and codes for the timeline
    retry_at: datetime | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """Something that happened to a run. (run_id, sequence) identifies it: recording twice changes nothing."""

    run_id: UUID
    sequence: int
    kind: str  # entered, sent, not_sent, held, waiting, woke, chose, parked, paused, resumed, retried, skipped, or the last phase
    phase: str  # the run's phase after it
    occurred_at: datetime
    beneath: str | None = None  # while it is paused: the phase underneath
    step_id: str | None = None
    visit: int | None = None
    wake_at: datetime | None = None
    reason: str | None = None
    actor_kind: str = "system"
    actor_id: UUID | None = None
    details: dict[str, Any] = field(default_factory=dict)


class AuditBatch(Payload):
    scope: Scope
    transitions: Sequence[Transition]


class RunMessage(Payload):
    """Something outside a run that concerns it. Heard twice, or too late, it changes nothing."""

    run_id: UUID
    kind: Literal["matched", "exit", "reconsider", "variables"]
    step_id: str | None = None  # matched: of the wait
    visit: int | None = None
    index: int | None = None  # matched: of the way
    reason: str | None = None  # exit, variables
    names: Sequence[str] = ()  # variables: of those that have changed
    actor_kind: str = "system"
    actor_id: UUID | None = None
    operation_id: UUID | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class RunMessages(Payload):
    """What the signal `tell` carries."""

    messages: Sequence[RunMessage]


class MoveChoice(Payload):
    """What becomes of the runs at one step of the version they are on: they move to `step_id` of the new one, or exit (None)."""

    step_id: str | None = None


class MoveOrder(Payload):
    """A publish plan, as the update `move_runs` brings it to a workflow. Steps that are not named keep their runs."""

    plan_id: UUID
    version_id: UUID
    choices: dict[str, MoveChoice]
    run_ids: Sequence[UUID] | None = None  # None: every run that stands there
    actor_kind: str = "user"
    actor_id: UUID | None = None


class HandOver(Payload):
    """Runs that leave their workflow for one of another version."""

    scope: Scope
    order: MoveOrder
    runs: Sequence[RunState]


class PlanRef(Payload):
    """A publish plan under way. `passes`: how often its workflows have been told; each time is a word of its own. `after`: how far
    this pass has come."""

    organization_id: UUID
    plan_id: UUID
    passes: int = 0
    after: str | None = None


class PlanPage(Payload):
    plan: PlanRef
    after: str | None = None


class PlanPageTold(Payload):
    after: str | None = None  # pass it back for the next page; None: that was the last


class PlanProgress(Payload):
    finished: bool


class OperationRef(Payload):
    """An operation on many runs under way. `passes`: how often those that did not answer have been asked. `after`: how far this pass has
    come."""

    organization_id: UUID
    operation_id: UUID
    command: str
    passes: int = 0
    after: int = 0


class OperationPage(Payload):
    operation: OperationRef
    after: int = 0  # the position behind which the page begins


class OperationPageDone(Payload):
    after: int | None = None  # pass it back for the next page; None: that was the last


class OperationEnd(Payload):
    operation: OperationRef
    last: bool = False  # nobody is asked again: runs that have not answered failed


class OperationProgress(Payload):
    finished: bool


class ControlledKind(StrEnum):
    CAMPAIGN = "campaign"
    JOURNEY = "journey"
    CONNECTION = "connection"  # only `resume`: it works again, and runs that were held for it ask now


class Control(Payload):
    """An operator's word about every run of a campaign or a journey."""

    organization_id: UUID
    kind: ControlledKind
    id: UUID
    command: Literal["pause", "resume", "cancel"]
    request_id: UUID | None = None  # the same word said twice has the same
    pauses: int | None = None  # how often a pause had been said: a resume lifts no later one
    spread: timedelta | None = None  # resume: each run goes on at a moment of its own within it
    drop_older_than: timedelta | None = None  # resume: runs that were due longer ago exit instead
    recheck_entry: bool = False  # resume: runs that could not enter now exit instead
    braking_id: UUID | None = None  # a pause that stands only as long as this braking is in force
    actor_kind: str = "system"
    actor_id: UUID | None = None
    reason: str | None = None


class BrakingRef(Payload):
    """A journey or campaign that was paused because too much of it failed. `tries`: how often its people were written to in vain."""

    organization_id: UUID
    braking_id: UUID
    tries: int = 0
    now: datetime | None = None  # the workflow's clock, so that virtual time works


class BrakingNotice(Payload):
    """When to try again to tell somebody; None: that is over."""

    look_at: datetime | None = None


class WorkflowPage(Payload):
    workflow_ids: Sequence[str]
    after: str | None = None  # pass it back for the next page; None: that was the last


class ControlPage(Payload):
    control: Control
    after: str | None = None


class ControlTargets(Payload):
    control: Control
    workflow_ids: Sequence[str]


class CampaignRef(Payload):
    organization_id: UUID
    campaign_id: UUID
    started: bool = False  # every page's workflow has been started
    scheduled: bool = False  # it starts later than its workflow
    now: datetime | None = None  # the workflow's clock, so that virtual time works; None: the database's


class AudiencePages(Payload):
    """The snapshot of a campaign's audience: how many runs, in how many pages of one workflow each."""

    scope: Scope
    runs: int
    pages: int


class CampaignPlan(Payload):
    """When to look again whether the campaign starts; None: now."""

    look_at: datetime | None = None


class Dawn(Payload):
    """A day begins on which a recurring campaign is due. `scheduled_at`: when Temporal's schedule meant that."""

    organization_id: UUID
    campaign_id: UUID
    scheduled_at: datetime
    now: datetime


class Occurrences(Payload):
    """The campaigns that the day's occurrences are."""

    scopes: Sequence[Scope]


class PageRange(Payload):
    """The campaign's pages from `first` up to, but not including, `end`."""

    scope: Scope
    first: int
    end: int


class CampaignProgress(Payload):
    finished: bool


class Routing(Payload):
    """Whose events and changes. `timed`: also look at what becomes true by the passing of time alone."""

    organization_id: UUID
    timed: bool = False


class Routed(Payload):
    """`more`: there was more than one call takes. `stuck`: some workflow could not be told yet."""

    more: bool = False
    stuck: bool = False


class Upkeep(Payload):
    """What the upkeep workflow asks of an activity: everything, in every organization."""


class Reconcile(Payload):
    """What the reconciler asks of an activity: everything, in every organization."""


class Reconciled(Payload):
    """Findings that were opened and resolved, runs that were found lost, histories that were archived."""

    opened: int = 0
    resolved: int = 0
    lost: int = 0
    archived: int = 0


class JourneyInput(Payload):
    """What a JourneyWorkflow starts with, and what it hands itself over continue-as-new."""

    scope: Scope
    definition: Definition
    runs: Sequence[RunState]
    held_by: Sequence[str] = ()  # "campaign", "journey": whole-workflow pauses in force
    cancelled: bool = False  # the campaign, or every run of the journey, was cancelled before this workflow started


class Place(Payload):
    """Where a run stands. `visit` None: any."""

    step_id: str
    visit: int | None = None


class RunControl(Payload):
    """An operator's word about some runs of one workflow; sent as the update `control_runs`."""

    command: Literal["pause", "resume", "cancel", "retry", "skip", "jump", "cancel_step", "restore_step", "approve", "reject"]
    run_ids: Sequence[UUID]
    actor_kind: str = "user"
    actor_id: UUID | None = None
    reason: str | None = None
    places: Mapping[str, Place] = Field(default_factory=dict)  # by run id: obeyed only by a run that (still) stands there
    to_step: str | None = None  # jump: where it arrives; cancel_step and restore_step: which
    operation_id: UUID | None = None  # said to many runs at once
    request_id: UUID | None = None  # the same word said again has the same, also to the workflow that has taken the runs over

    @property
    def word(self) -> UUID | None:
        """By what a word that is heard twice is known."""
        return self.request_id or self.operation_id


class RunControlled(Payload):
    """What `control_runs` answers for one run: its phase now, and whether the command changed anything; `why` not, as a code."""

    run_id: UUID
    phase: str
    changed: bool
    why: str | None = None


# Search attributes: ids only, for they are not encrypted.
ORGANIZATION_ID = SearchAttributeKey.for_keyword("OrganizationId")
JOURNEY_ID = SearchAttributeKey.for_keyword("JourneyId")
VERSION_ID = SearchAttributeKey.for_keyword("VersionId")
CAMPAIGN_ID = SearchAttributeKey.for_keyword("CampaignId")
SCHEDULED_AT = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")  # Temporal's own: what its schedule meant
SEARCH_ATTRIBUTES = (ORGANIZATION_ID, JOURNEY_ID, VERSION_ID, CAMPAIGN_ID)

JOURNEY_WORKFLOW = "JourneyWorkflow"
CAMPAIGN_WORKFLOW = "CampaignWorkflow"
OCCURRENCE_WORKFLOW = "OccurrenceWorkflow"
CONTROL_WORKFLOW = "ControlWorkflow"
MOVE_PLAN_WORKFLOW = "MovePlanWorkflow"
OPERATION_WORKFLOW = "OperationWorkflow"
BRAKING_WORKFLOW = "BrakingWorkflow"
UPKEEP_WORKFLOW = "UpkeepWorkflow"
ROUTING_WORKFLOW = "RoutingWorkflow"
RECONCILE_WORKFLOW = "ReconcileWorkflow"
MOVE_RUNS = "move_runs"  # the updates of JourneyWorkflow
CONTROL_RUNS = "control_runs"
UPKEEP_EVERY = timedelta(minutes=1)
RECONCILE_EVERY = timedelta(minutes=1)


# --- How each is run. Timeouts are per attempt unless said. ---------------------------------------------------------

# Database work of one batch. A lost worker is noticed by the missing heartbeat, not by the long timeout.

# A version or step that does not exist, or a malformed rule, does not come right by trying again: the runs park.
HOPELESS = ["NotFound", "Invalid", "UnknownProvider"]

RECORDS = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=20), non_retryable_error_types=HOPELESS
    ),
)
# A batch may wait for its connection's rate limit, so it is long. The SDK passes heartbeats on at 80 % of their timeout, each of them a
# write of the server's: with hundreds of batches waiting, a timeout of 10 s was half of the server's work.
SENDS = ActivityConfig(
    start_to_close_timeout=timedelta(hours=2),
    heartbeat_timeout=timedelta(seconds=20),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=20), non_retryable_error_types=HOPELESS
    ),
)
# A round that fails is not worth repeating for long: the next one comes in a minute.
CHECKS = ActivityConfig(
    start_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=timedelta(seconds=20),
    retry_policy=RetryPolicy(initial_interval=timedelta(seconds=2), maximum_attempts=2),
)
HEARTBEAT_EVERY = timedelta(seconds=3)

TRANSITIONS_AT_ONCE = 1000  # about 310 bytes each; Temporal takes payloads of up to 2 MiB

# --- A send's limits ------------------------------------------------------------------------------------------------

TRANSMIT_LEASE = timedelta(seconds=30)  # a message handed over this long ago, its attempt silent, is unknown
MAXIMUM_TRIES = 8  # transient and throttled answers to one message before it gives up
FIRST_RETRY = timedelta(seconds=15)  # doubled after every try, when the provider named no time
LONGEST_RETRY = timedelta(minutes=15)
SETTLE_PATIENCE = timedelta(seconds=60)  # how long a heard answer waits for an absent database


def fair_share(organization_id: str) -> Priority:
    """For every start: one organization's million does not delay another's ten. Activities inherit it."""
    return Priority(fairness_key=organization_id)


def send_queue(task_queue: str) -> str:
    """Sends have a queue of their own, so that sends waiting for a rate limit do not keep checks and records waiting."""
    return f"{task_queue}-send"


# The stubs below carry name and types only. `activities/*.py` registers an implementation under the same name.


@activity.defn(name="check_consent")
async def check_consent(batch: VisitBatch) -> list[Judgement]:
    """May each of these messages be sent as far as consent, suppression, topic and address say? Never holds."""
    raise NotImplementedError


@activity.defn(name="check_quiet_hours")
async def check_quiet_hours(batch: VisitBatch) -> list[Judgement]:
    """Is it a permitted hour at each contact's place? Holds until the window's end where not."""
    raise NotImplementedError


@activity.defn(name="choose_branches")
async def choose_branches(batch: VisitBatch) -> list[StepAnswer]:
    """The branch each run takes, evaluated on the contact as it is now: `index` of the condition, None for `otherwise`."""
    raise NotImplementedError


@activity.defn(name="plan_waits")
async def plan_waits(batch: VisitBatch) -> list[StepAnswer]:
    """`until` when each run waits, by the contact's zone and dates as they are now; None and a `reason` where there is no such time."""
    raise NotImplementedError


@activity.defn(name="open_waits")
async def open_waits(batch: VisitBatch) -> list[StepAnswer]:
    """Events and conditions are watched for from now on. `index` where one has come already: then the wait is over."""
    raise NotImplementedError


@activity.defn(name="close_waits")
async def close_waits(batch: VisitBatch) -> list[StepAnswer]:
    """The wait's time is over. `index` where something came before this was written; from now on nothing does."""
    raise NotImplementedError


@activity.defn(name="perform_steps")
async def perform_steps(batch: VisitBatch) -> list[StepAnswer]:
    """What the steps (all of one kind) do is done: once, unless the kind says otherwise."""
    raise NotImplementedError


@activity.defn(name="hand_over_runs")
async def hand_over_runs(handed: HandOver) -> None:
    """A workflow of the new version carries these runs."""
    raise NotImplementedError


@activity.defn(name="tell_moves")
async def tell_moves(page: PlanPage) -> PlanPageTold:
    """The next page of workflows with runs at steps that the plan speaks of has been told."""
    raise NotImplementedError


@activity.defn(name="finish_plan")
async def finish_plan(plan: PlanRef) -> PlanProgress:
    """The plan is marked completed when no unfinished run stands where it says move or exit."""
    raise NotImplementedError


@activity.defn(name="control_page")
async def control_page(page: OperationPage) -> OperationPageDone:
    """The workflows of the operation's next runs have been told, and what each answered is on record."""
    raise NotImplementedError


@activity.defn(name="set_variables_page")
async def set_variables_page(page: OperationPage) -> OperationPageDone:
    """The operation's next runs hold the variables that it says, and their workflows will be told."""
    raise NotImplementedError


@activity.defn(name="replay_page")
async def replay_page(page: OperationPage) -> OperationPageDone:
    """The operation's next runs are replayed by new ones, and what became of each is on record."""
    raise NotImplementedError


@activity.defn(name="finish_operation")
async def finish_operation(end: OperationEnd) -> OperationProgress:
    """The operation is marked completed when every run of it is settled, or cancelled."""
    raise NotImplementedError


@activity.defn(name="send_messages")
async def send_messages(batch: VisitBatch) -> list[SendResult]:
    """Each message is claimed, handed to the provider at most once, and its outcome settled."""
    raise NotImplementedError


@activity.defn(name="record_audit")
async def record_audit(batch: AuditBatch) -> None:
    """Timeline, run projection and audit chain hold these transitions."""
    raise NotImplementedError


@activity.defn(name="plan_campaign")
async def plan_campaign(campaign: CampaignRef) -> CampaignPlan:
    """When to look again whether the campaign starts."""
    raise NotImplementedError


@activity.defn(name="make_occurrences")
async def make_occurrences(dawn: Dawn) -> Occurrences:
    """Each of the day's occurrences is a campaign of its own, unless it is to be left out."""
    raise NotImplementedError


@activity.defn(name="start_occurrences")
async def start_occurrences(made: Occurrences) -> None:
    """The CampaignWorkflow of each occurrence's campaign is running (or has run)."""
    raise NotImplementedError


@activity.defn(name="snapshot_audience")
async def snapshot_audience(campaign: CampaignRef) -> AudiencePages:
    """The campaign's runs exist, one per selected contact, divided into pages."""
    raise NotImplementedError


@activity.defn(name="start_pages")
async def start_pages(pages: PageRange) -> None:
    """The JourneyWorkflow of each page is running (or has run)."""
    raise NotImplementedError


@activity.defn(name="finish_campaign")
async def finish_campaign(campaign: CampaignRef) -> CampaignProgress:
    """The campaign is marked completed when no run of it is unfinished."""
    raise NotImplementedError


@activity.defn(name="apply_control")
async def apply_control(control: Control) -> bool:
    """The flag on the campaign or journey is as commanded: from now on the last check before a send obeys it.

    False: a later word stands against this one, and nobody need be told of it."""
    raise NotImplementedError


@activity.defn(name="controlled_workflows")
async def controlled_workflows(page: ControlPage) -> WorkflowPage:
    """The next page of workflows that carry unfinished runs of the campaign or journey."""
    raise NotImplementedError


@activity.defn(name="signal_workflows")
async def signal_workflows(targets: ControlTargets) -> None:
    """Each workflow has been told. A workflow that is closed needs no telling."""
    raise NotImplementedError


@activity.defn(name="hold_braked")
async def hold_braked(braking: BrakingRef) -> None:
    """The control workflow of what was braked has heard that its runs pause, unless it has been resumed."""
    raise NotImplementedError


@activity.defn(name="notify_of_braking")
async def notify_of_braking(braking: BrakingRef) -> BrakingNotice:
    """The first of those responsible who can be told has a mail about it, or that is to be tried again later."""
    raise NotImplementedError


@activity.defn(name="route_events")
async def route_events(routing: Routing) -> Routed:
    """Accepted events and changed contacts have been matched to entries, exits, goals and waits, and the workflows concerned started and
    told."""
    raise NotImplementedError


@activity.defn(name="wake_routing")
async def wake_routing(upkeep: Upkeep) -> int:
    """Wherever something waits to be routed or told, or may have become true by time alone, routing is under way: how many
    organizations."""
    raise NotImplementedError


@activity.defn(name="compare_workflows")
async def compare_workflows(reconcile: Reconcile) -> Reconciled:
    """Rows and workflows have been compared, and workflows in trouble found; runs whose workflow is gone need attention."""
    raise NotImplementedError


@activity.defn(name="compare_records")
async def compare_records(reconcile: Reconcile) -> Reconciled:
    """The records have been looked through: waits that nothing can end, volumes, conservation, histories that are missing."""
    raise NotImplementedError


@activity.defn(name="archive_histories")
async def archive_histories(reconcile: Reconcile) -> Reconciled:
    """Histories of journey workflows that have closed are in the archive."""
    raise NotImplementedError


@activity.defn(name="start_missing_workflows")
async def start_missing_workflows(upkeep: Upkeep) -> int:
    """Campaigns and runs whose rows were written, but whose workflow was never started, are started; how many were looked at."""
    raise NotImplementedError


# --- What steps ask -------------------------------------------------------------------------------------------------

STEP_QUESTIONS: Mapping[str, Callable[[VisitBatch], Awaitable[list[StepAnswer]]]] = {
    each.__name__: each for each in (choose_branches, plan_waits, open_waits, close_waits, perform_steps)
}


# --- How operations on many runs are carried out, page by page: those that are not named here by `control_page` ----------

OPERATION_PAGES: Mapping[str, Callable[[OperationPage], Awaitable[OperationPageDone]]] = {
    "set_variables": set_variables_page,
    "replay": replay_page,
}
