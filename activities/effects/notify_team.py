"""`notify_team`: a mail to colleagues, at most once."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from activities.contracts.sending import MAXIMUM_TRIES, SendOutcome
from activities.contracts.steps import StepAnswer, StepVisit
from activities.effects.effect import (
    CONTACT_GONE,
    Answers,
    Build,
    EffectTools,
    Lookout,
    NotNow,
    Work,
    all_ended,
    ask_again,
    claims,
    done_before,
    gone,
    halted,
    leaving,
)
from activities.lines import CONNECTION_CHANGED, Line, is_current, mark_broken, send_guarded
from activities.message import mail_from
from activities.outcomes import back_off
from activities.providers.port import ABORTED, OutgoingEmail, ProviderAnswer
from activities.ways import Way, Ways
from models.domain.journey.steps.notify_team import NotifyTeamStep
from models.domain.template import Unsendable
from models.domain.wait_time import shared_instant
from models.message_content import printed_mail
from models.rendering import Rendered
from models.store import access, audit, connections, deliveries, effects
from models.store.connections import SendingConnection
from models.store.effects import Claimed, EffectRow, Settlement
from models.store.eligibility import Recipient, load_audience
from models.store.session import OrganizationSession

AT_ONCE = 20  # visits that are claimed together
HORIZON = timedelta(seconds=20)  # how far away the connection's next slot may be, to be waited for here
MENDING = timedelta(minutes=30)  # how rarely, at the least, a connection that does not work is looked at
RATE_LIMITED = "rate_limited"
LATER = (SendOutcome.TRANSIENT, SendOutcome.THROTTLED, SendOutcome.CONNECTION_BROKEN, SendOutcome.PAUSED)
LASTING = (SendOutcome.CONNECTION_BROKEN, SendOutcome.PAUSED)


@dataclass(frozen=True)
class _Notice:
    """One run's mails, claimed. `addresses`: of the step's members who still are members, by user."""

    visit: StepVisit
    step: NotifyTeamStep
    claimed: Claimed
    connection: SendingConnection
    recipient: Recipient | None  # the contact that it is about; None: gone
    organization: Mapping[str, Any]
    addresses: Mapping[UUID, str]

    @property
    def told(self) -> list[str]:
        """Users whose mail was accepted in an earlier try."""
        return list(self.claimed.details.get("told", ()))


@dataclass(frozen=True)
class _Claimed:
    notices: Sequence[_Notice] = ()
    standings: Mapping[UUID, EffectRow] = field(default_factory=dict)
    troubles: Mapping[UUID, str] = field(default_factory=dict)  # why a run's mail cannot leave just now, by run
    ways: Sequence[Way] = ()


@dataclass
class _Round:
    """What this try of one run's mails has come to: codes, by user."""

    told: list[str]
    refused: dict[str, str] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    wait: timedelta = timedelta(0)  # as long as a provider wants
    held: str | None = None  # why nothing may leave just now
    lasting: bool = False  # what is in the way is no fault of the mail's: it does not count as a try
    broken: str | None = None  # what is wrong with the connection

    def hear(self, user_id: str, answer: ProviderAnswer) -> None:
        reason = answer.reason or str(answer.outcome)
        match answer.outcome:
            case SendOutcome.ACCEPTED:
                self.told.append(user_id)
            case SendOutcome.UNKNOWN:
                self.unknown[user_id] = reason
            case outcome if outcome == ABORTED or outcome in LATER:
                self.later[user_id] = reason
                self.wait = max(self.wait, answer.retry_after or timedelta(0))
                self.lasting = self.lasting or outcome in LASTING or reason in (RATE_LIMITED, CONNECTION_CHANGED)
                if outcome is SendOutcome.PAUSED:
                    self.held = reason
                if outcome is SendOutcome.CONNECTION_BROKEN:
                    self.broken = self.broken or reason
            case _:
                self.refused[user_id] = reason

    def load_anew(self) -> None:
        """The connection has been changed, and may work: nobody waits for it to be mended."""
        self.later = dict.fromkeys(self.later, CONNECTION_CHANGED)


class NotifyTeam:
    def __init__(self, tools: EffectTools) -> None:
        self.tools = tools
        self.ways = Ways(tools.database, tools.settings)

    async def perform(self, work: Work) -> Answers:
        """Each member gets one mail about each run; who is no member any more gets none.

        Safe to run twice: the row says `transmitting` before a server could accept the first mail, and whoever finds it so makes it
        `unknown` and sends nothing. So a worker that dies between the server's yes and our record leaves a doubt, never a second mail.
        Mails that were certainly not accepted, or held because something was paused while they waited for others, are tried again, and of
        a run's mails only those. Row by row, since each waits for a server of its own; these are few.
        """
        answers: Answers = {}
        for visits in work.chunks(AT_ONCE):
            if leaving():
                raise halted()
            answers |= await self._chunk(work, visits)
        return answers

    async def _chunk(self, work: Work, visits: Sequence[StepVisit]) -> Answers:
        lookout = Lookout(self.tools.watch, work.scope)
        async with self.tools.database.organization(work.scope.organization_id) as session:
            reason = await deliveries.paused_reason(session, work.scope.journey_id, work.scope.campaign_id)
            claimed = _Claimed() if reason is not None else await self._claim(session, work, visits)
        if reason is not None:
            return {visit.run_id: ask_again(visit, reason, work.clock.now()) for visit in visits}
        await self.ways.mend(claimed.ways)
        told, fault = await all_ended((self._notify(work, notice, lookout) for notice in claimed.notices), None)
        if fault is not None:
            raise fault
        answers = {run_id: done_before(standing) for run_id, standing in claimed.standings.items()}
        answers |= {
            visit.run_id: ask_again(visit, why, work.clock.now(), MENDING)
            for visit in visits
            if (why := claimed.troubles.get(visit.run_id))
        }
        answers |= {answer.run_id: answer for answer in told}
        return {visit.run_id: answers.get(visit.run_id) or gone(visit.run_id) for visit in visits}

    # --- claiming ---------------------------------------------------------------------------------------------------

    async def _claim(self, session: OrganizationSession, work: Work, visits: Sequence[StepVisit]) -> _Claimed:
        """What this attempt carries, and how the rest stands. One transaction, in a constant number of statements per connection."""
        steps = {visit.run_id: work.step(visit, NotifyTeamStep) for visit in visits}
        ways = {id: await self.ways.way(session, id, "email") for id in {step.connection_id for step in steps.values()}}
        lost = await effects.abandon(session, "notify_team", claims(visits))
        sendable = [visit for visit in visits if ways[steps[visit.run_id].connection_id].trouble is None]
        claimed = await effects.claim(session, "notify_team", claims(sendable))
        standings = await effects.standings(session, "notify_team", claims([visit for visit in visits if visit.run_id not in claimed]))
        addresses = await access.member_addresses(session, {member for step in steps.values() for member in step.members})
        audience = await load_audience(session, {visit.run_id: visit.contact_id for visit in visits if visit.run_id in claimed})
        await audit.append(session, [one.entry() for one in lost])  # last: locks the chain's head
        notices: list[_Notice] = []
        troubles: dict[UUID, str] = {}
        for visit in visits:
            step = steps[visit.run_id]
            way = ways[step.connection_id]
            if way.trouble is not None:
                troubles[visit.run_id] = way.trouble
            elif visit.run_id in claimed and way.connection is not None:
                mine = {member: addresses[member] for member in step.members if member in addresses}
                recipient, row = audience.recipients.get(visit.run_id), claimed[visit.run_id]
                notices.append(_Notice(visit, step, row, way.connection, recipient, audience.organization, mine))
        settled = {run_id: standing for run_id, standing in standings.items() if standing.state not in ("claimed", "failed")}
        unsettled = {run_id: trouble for run_id, trouble in troubles.items() if run_id not in settled}
        return _Claimed(notices, settled, unsettled, list(ways.values()))

    # --- one run's mails --------------------------------------------------------------------------------------------

    async def _notify(self, work: Work, notice: _Notice, lookout: Lookout) -> StepAnswer:
        if notice.recipient is None:
            return await self._settle(work, notice, "refused", CONTACT_GONE)
        if not notice.addresses:
            return await self._settle(work, notice, "refused", "no_members")
        try:
            who = notice.recipient
            rendered = printed_mail(notice.step.subject, notice.step.text, who.contact, who.variables, notice.organization["name"])
        except Unsendable as unsendable:
            return await self._settle(work, notice, "failed", unsendable.reason)
        return await self._conclude(work, notice, await self._mail_all(work, notice, rendered, lookout))

    async def _mail_all(self, work: Work, notice: _Notice, rendered: Rendered, lookout: Lookout) -> _Round:
        line = await self.tools.lines.line(notice.connection)
        gate = _Gate(self, work, notice)
        round = _Round(notice.told)
        for member, address in notice.addresses.items():
            if str(member) not in round.told:
                mail = mail_from(notice.connection, uuid5(notice.claimed.id, str(member)), address, rendered, datetime.now(UTC))
                round.hear(str(member), await self._send(line, mail, gate, lookout))
        if round.broken is not None and not await mark_broken(self.tools.database, notice.connection, round.broken):
            round.load_anew()
        return round

    async def _send(self, line: Line, mail: OutgoingEmail, gate: "_Gate", lookout: Lookout) -> ProviderAnswer:
        if leaving():
            return ProviderAnswer(ABORTED)
        try:
            await lookout.check()  # a slot of the rate is not given back
            if (reason := await self._slot(gate.notice)) is not None:
                return ProviderAnswer(SendOutcome.THROTTLED, reason)
            async with line.places:
                await lookout.check()
                gate.asked = False
                return await send_guarded(line, mail, gate)
        except NotNow as held:
            return ProviderAnswer(SendOutcome.PAUSED, held.reason)

    async def _slot(self, notice: _Notice) -> str | None:
        """None: the connection's rate lets one more go now. Otherwise why none can: its next slot is too far away, or it is another
        connection by now."""
        if notice.connection.rate_per_second is None:
            return None
        async with self.tools.database.organization(notice.connection.organization_id) as session:
            slots = await connections.reserve_slots(session, notice.connection.id, 1, HORIZON)
        if not slots.delays:
            return RATE_LIMITED
        await asyncio.sleep(slots.delays[0])
        return None if await is_current(self.tools.database, notice.connection) else CONNECTION_CHANGED

    # --- what became of them ----------------------------------------------------------------------------------------

    async def _conclude(self, work: Work, notice: _Notice, round: _Round) -> StepAnswer:
        """In doubt about one, nobody is written to again by itself. Whoever can still be told is, as long as there are tries; then one
        who was told is enough for the run to go on."""
        details: dict[str, Any] = {"told": round.told} if round.told else {}
        missed = round.refused | round.later | round.unknown
        full = details | ({"not_told": missed} if missed else {})
        tries = notice.claimed.attempts % MAXIMUM_TRIES  # a person who retries a run that gave up grants as many again
        if round.unknown:
            return await self._settle(work, notice, "unknown", next(iter(round.unknown.values())), full)
        if round.later and (tries or round.lasting):
            wait = timedelta(0) if CONNECTION_CHANGED in round.later.values() else max(back_off(tries), round.wait)
            at = shared_instant(work.clock.now() + wait)
            return await self._settle(work, notice, "claimed", round.held or next(iter(round.later.values())), details, at)
        if round.told:
            return await self._settle(work, notice, "done", None, full)
        if round.later:
            return await self._settle(work, notice, "failed", f"gave_up:{next(iter(round.later.values()))}", full)
        return await self._settle(work, notice, "failed", next(iter(round.refused.values())), full)

    async def _settle(
        self,
        work: Work,
        notice: _Notice,
        state: str,
        reason: str | None,
        details: Mapping[str, Any] | None = None,
        retry_at: datetime | None = None,
    ) -> StepAnswer:
        kept = dict(details or {})
        async with self.tools.database.organization(work.scope.organization_id) as session:
            settled = await effects.settle(session, [Settlement(notice.claimed, state, reason, kept)])
            await audit.append(session, [one.entry() for one in settled if one.state != "claimed"])
        return StepAnswer(
            run_id=notice.visit.run_id,
            refused=state == "refused",
            failed=state in ("failed", "unknown"),
            reason=reason,
            details=kept,
            retry_at=retry_at,
        )


@dataclass
class _Gate:
    """The way of one run's mails past the point where the first of them could be accepted."""

    effect: NotifyTeam
    work: Work
    notice: _Notice
    open: bool = False  # since the first of them
    asked: bool = False  # for the present mail

    @property
    def passed(self) -> bool:
        return self.asked and self.open

    async def transmit(self) -> bool:
        self.asked = True
        if not self.open:
            async with self.effect.tools.database.organization(self.work.scope.organization_id) as session:
                passed = await effects.let_pass(session, self.notice.claimed)
            self.open = passed  # committed
        return self.open


EFFECTS: Mapping[str, Build] = {"notify_team": NotifyTeam}
