"""Replaying runs: previewed without writing anything; done by a new run, whose row comes first, and whose workflow the outbox starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from api.commands import routing, temporal
from api.dependencies import Caller, Services
from models.domain.decision import Decision, HourFacts, decide_consent, decide_hours
from models.domain.errors import Conflict, Invalid, LeadStatsError, NotFound, PreviewOutdated
from models.domain.journey.definition import SendStep
from models.domain.journey.replay import Ahead, Standing, counts
from models.domain.quiet_hours import choose_zone, read_window
from models.store import audit, replay_plans, replays, runs, timelines, waits
from models.store.eligibility import Asked, load_consent_facts, load_places
from models.store.replay_plans import Old, Plan, Refusal, ReplayOptions
from models.store.session import OrganizationSession
from models.tables.base import utc_now
from models.tables.journeys import Run


async def replay_run(caller: Caller, run_id: UUID, wanted: ReplayOptions, key: str | None, previewed_version_id: UUID | None = None) -> Run:
    """A new run goes on in the old one's place: it exists, and its workflow is being started. The same Idempotency-Key finds the same run.

    Whoever is first wins: the old run is closed in the transaction that makes the new one. Its workflow, if there is any, is told by the
    outbox, which starts the new one's, too.

    Raises:
        NotFound: no such run.
        Conflict: it is under way, has been replayed already, or its journey or campaign takes nothing any more.
        PreviewOutdated: it would go on upon another version than the one that was previewed.
        Invalid: there is no such step, or nothing there to be sent again.
        Unavailable: the replay exists, but routing could not be woken to start its workflow. Repeat with the same key; without, upkeep
            does that within a minute.
    """
    request = None if key is None else temporal.request_id(key, caller.organization_id, caller.actor.id, "replay", run_id)
    async with caller.session() as session:
        run = None if request is None else await runs.find_by_request(session, request)
        if run is None:
            await waits.routing_lock(session, alone=False)
            plan = await _plan(session, run_id, wanted, lock=True)
            if previewed_version_id not in (None, plan.version.id):
                raise PreviewOutdated(f"The replay would go on upon version {plan.version.number} by now; preview it again.")
            [made], entries = await replays.make(session, [plan], wanted, caller.actor, request)
            run = await runs.get(session, made.id)
            await audit.append(session, entries)
    await routing.poke(caller.services, caller.organization_id)
    return run


async def _plan(session: OrganizationSession, run_id: UUID, wanted: ReplayOptions, *, lock: bool) -> Plan:
    olds = await replay_plans.load(session, [run_id], lock=lock)
    if not olds:
        raise NotFound("run", run_id)
    [plan] = await replay_plans.plan(session, olds, wanted)
    if isinstance(plan, Refusal):
        raise _refused(plan)
    return plan


def _refused(refusal: Refusal) -> LeadStatsError:
    old = refusal.old
    match refusal.code:
        case "not_over":
            return Conflict(f"The run is {old.status}: {_WAY_OUT.get(old.status, _UNDER_WAY)}.")
        case "replayed_already":
            return Conflict(f"This run has been replayed already, by the run {old.replayed_by}; replay that one.")
        case "run_left" | "run_cancelled":
            return Conflict(f"The run is ending: {_ENDING[refusal.code]}. {_ENDED_FIRST}")
        case "journey_archived":
            return Conflict("The run's journey is archived; restore it first, then replay the run.")
        case "campaign_cancelled":
            return Conflict("The run's campaign was cancelled, and nothing of it is sent any more; start a run for the contact instead.")
        case "nothing_to_resend":
            return Invalid.field("resend", refusal.code, _nothing_to_resend(refusal))
    return Invalid.field("from_step", refusal.code, _unknown_step(refusal))


_ENDING: Mapping[str, str] = {"run_left": "a rule of its journey has ended it", "run_cancelled": "somebody has cancelled it"}
_ENDED_FIRST = "If it is to go on all the same, wait until it has ended (or, if its workflow is gone, cancel it), and then replay it."
_UNDER_WAY = "a replay takes the place of a run that needs attention or has finished; cancel it first, or wait until it has finished"
_WAY_OUT: Mapping[str, str] = {"paused": "resume it (or its journey or campaign, if that is paused) or cancel it first, then replay it"}


def _unknown_step(refusal: Refusal) -> str:
    assert refusal.version is not None and refusal.original is not None
    number, original = refusal.version.number, refusal.original.number
    here = f"Version {number} has no step {refusal.step!r}"
    elsewhere = f", or replay it on version {original}, which the run was on" if number != original else ""
    return f"{here}; begin at one of its steps ({', '.join(refusal.steps[:20])}){elsewhere}."


def _nothing_to_resend(refusal: Refusal) -> str:
    there_is = f"it can be asked for at {', '.join(refusal.steps)}" if refusal.steps else "nothing has been done from there on"
    return f"At {refusal.step!r} nothing was done that could be done again: {there_is}. What was not done is done anyway."


# --- the dry run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """What one of the checks before a send says now."""

    check: str
    decision: Decision


@dataclass(frozen=True)
class Preview:
    """What a replay would do. `ended`: the reason why it would end before it does anything; then nothing is `ahead`. `checks`: before the
    first message that would be sent; that is of `first_send`. `topics`: their names."""

    plan: Plan
    ended: str | None
    ahead: Sequence[Ahead]
    numbers: Mapping[str, int]
    first_send: str | None
    checks: Sequence[Check]
    topics: Mapping[str, str]

    @property
    def differs(self) -> bool:
        """Whether the version is another one than the run's, and not the same in content."""
        return self.plan.version.content_hash != self.plan.original.content_hash

    def step_differs(self, ahead: Ahead) -> bool:
        """Whether this step of the version says or does something else than that of the run's. Versions name their templates' versions."""
        return bool(self.plan.version.definition["steps"][ahead.step_id] != self.plan.original.definition["steps"].get(ahead.step_id))


async def preview(caller: Caller, run_id: UUID, wanted: ReplayOptions) -> Preview:
    """What a replay would do if it were asked for now. Writes nothing. Raises as `replay_run`, but for PreviewOutdated and Unavailable."""
    now = utc_now()
    async with caller.session() as session:
        plan = await _plan(session, run_id, wanted, lock=False)
        ended = (await replay_plans.ends_at_once(session, [plan])).get(run_id)
        ahead = plan.ahead if ended is None else []
        first = next((each.step_id for each in ahead if _is_sent(plan, each)), None)
        checks = [] if first is None else await _checks(session, caller.services, plan, first, now)
        topics = await timelines.topic_names(session)
    return Preview(plan, ended, ahead, counts(ahead), first, checks, topics)


def _is_sent(plan: Plan, ahead: Ahead) -> bool:
    return isinstance(plan.definition.steps[ahead.step_id], SendStep) and ahead.standing not in (Standing.KEPT, Standing.UNCERTAIN)


async def _checks(session: OrganizationSession, services: Services, plan: Plan, step_id: str, now: datetime) -> list[Check]:
    step, old = plan.definition.steps[step_id], plan.old
    assert isinstance(step, SendStep)
    return [
        Check("consent", await _consent(session, services, old, step)),
        Check("quiet_hours", await _hours(session, old, step, now)),
    ]


async def _consent(session: OrganizationSession, services: Services, old: Old, step: SendStep) -> Decision:
    asked = Asked(old.id, old.contact_id, step.channel, step.purpose, step.topic_id)
    facts = await load_consent_facts(session, [asked], services.settings.derive_key("suppressions"))
    return decide_consent(facts[old.id])


async def _hours(session: OrganizationSession, old: Old, step: SendStep, now: datetime) -> Decision:
    places = await load_places(session, [old.contact_id])
    zone = choose_zone(places.timezones.get(old.contact_id), places.organization_timezone)
    window = read_window(places.quiet_hours, step.channel)
    return decide_hours(HourFacts(step.channel, step.purpose, window, zone, step.in_quiet_hours == "drop"), now)
