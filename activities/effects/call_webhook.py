"""`call_webhook`: another system is told, at least once."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID, uuid5
from weakref import WeakValueDictionary

from activities.apart import lies_with_some, step_failed
from activities.contracts.sending import MAXIMUM_TRIES
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
from activities.providers.webhook import CallFailed, Reply
from models.domain.journey.steps.call_webhook import CallWebhookStep
from models.domain.journey.variables import within_bounds
from models.domain.journey.webhook_tries import meaning, pause_after
from models.domain.template import Unsendable
from models.domain.wait_time import shared_instant
from models.message_content import printed_json
from models.store import audit, deliveries, effects, kept, runs
from models.store.effects import Claimed, EffectRow, Settlement
from models.store.eligibility import Recipient, load_audience
from models.store.kept import Root
from models.webhook_signature import signed_headers, webhook_secret

AT_ONCE = 50  # visits that are claimed, called and settled together
PLACES = 10  # calls in the air to one host for one organization, in this process
LAST_WORDS = 0.5  # seconds that calls in the air have after the worker's grace: `up` kills a worker a second after it
MAX_BODY = 256 * 1024  # bytes
MESSAGES: Final = UUID("6f2b0f0e-6a5b-5c0e-9a37-6d3a8d0c7f11")  # the namespace of message ids


@dataclass(frozen=True)
class _Call:
    visit: StepVisit
    step: CallWebhookStep
    claimed: Claimed
    recipient: Recipient | None  # None: the contact is gone
    organization: Mapping[str, Any]
    message_id: UUID


@dataclass(frozen=True)
class _End:
    """What became of one call. `values` are for the run's variables."""

    answer: StepAnswer
    settlement: Settlement
    values: Mapping[str, Any]


class CallWebhook:
    def __init__(self, tools: EffectTools) -> None:
        self.tools = tools
        self._places: WeakValueDictionary[tuple[UUID, str | None], asyncio.Semaphore] = WeakValueDictionary()

    async def perform(self, work: Work) -> Answers:
        """Each is called, and what it answered is kept, in the transaction that settles the claim.

        Safe to run twice in that the message's id, made of run (of a replay: the first of its chain), step and visit, stays the same: a
        worker that dies between the answer and our record leaves a call that is made again, under its id. What is settled is not
        called again. A worker that goes away begins no further call and settles those that end within its patience; nor is one begun
        that waited for others while something was paused.
        """
        answers: Answers = {}
        for visits in work.chunks(AT_ONCE):
            if leaving():
                raise halted()
            answers |= await self._chunk(work, visits)
        return answers

    async def _chunk(self, work: Work, visits: Sequence[StepVisit]) -> Answers:
        lookout = Lookout(self.tools.watch, work.scope)
        reason, calls, standings = await self._claim(work, visits)
        if reason is not None:
            return {visit.run_id: ask_again(visit, reason, work.clock.now()) for visit in visits}
        ends, fault = await all_ended((self._finish(work, call, lookout) for call in calls), LAST_WORDS)
        await self._settle(work, ends)
        if fault is not None:
            raise fault
        answers = {run_id: done_before(standing) for run_id, standing in standings.items()}
        answers |= {end.answer.run_id: end.answer for end in ends}
        return {visit.run_id: answers.get(visit.run_id) or gone(visit.run_id) for visit in visits}

    async def _claim(self, work: Work, visits: Sequence[StepVisit]) -> tuple[str | None, list[_Call], dict[UUID, EffectRow]]:
        """Why nothing may leave just now, or what this attempt has to call, and how the rest stands."""
        async with self.tools.database.organization(work.scope.organization_id) as session:
            reason = await deliveries.paused_reason(session, work.scope.journey_id, work.scope.campaign_id)
            if reason is not None:
                return reason, [], {}
            asked = claims(visits)
            claimed = await effects.claim(session, "call_webhook", asked)
            standings = await effects.standings(session, "call_webhook", [one for one in asked if one.run_id not in claimed])
            mine = [visit for visit in visits if visit.run_id in claimed]
            audience = await load_audience(session, {visit.run_id: visit.contact_id for visit in mine})
            roots = await kept.roots(session, [visit.run_id for visit in mine]) if work.scope.replay else {}
        found, name = audience.recipients, audience.organization
        calls = [
            _Call(
                visit,
                work.step(visit, CallWebhookStep),
                claimed[visit.run_id],
                found.get(visit.run_id),
                name,
                message_id(visit, roots.get(visit.run_id)),
            )
            for visit in mine
        ]
        return None, calls, standings

    async def _settle(self, work: Work, ends: Sequence[_End]) -> None:
        if not ends:
            return
        async with self.tools.database.organization(work.scope.organization_id) as session:
            settled = await effects.settle(session, [end.settlement for end in ends])
            mine = {one.run_id for one in settled}
            await runs.add_variables(session, {end.answer.run_id: end.values for end in ends if end.values and end.answer.run_id in mine})
            await audit.append(session, [one.entry() for one in settled if one.state != "claimed"])  # last: locks the chain's head

    # --- one call ---------------------------------------------------------------------------------------------------

    async def _finish(self, work: Work, call: _Call, lookout: Lookout) -> _End:
        if call.recipient is None:
            return _refused(call, CONTACT_GONE)
        try:
            body = _body(work, call, call.recipient)
            return self._heard(work, call, await self._post(work, call, body, lookout))
        except NotNow as held:
            return _End(ask_again(call.visit, held.reason, work.clock.now()), Settlement(call.claimed, "claimed", held.reason), {})
        except Unsendable as unprintable:
            return _failed(call, unprintable.reason)
        except CallFailed as failure:
            return _failed(call, failure.reason) if failure.permanent else _again(work, call, failure.reason)
        except Exception as error:  # raised, it would have all that answered "later" called again at once, and for ever
            if leaving() or not lies_with_some(error):
                raise
            return _failed(call, step_failed(call.visit.run_id, error))

    async def _post(self, work: Work, call: _Call, body: bytes, lookout: Lookout) -> Reply:
        """Raises NotNow and CallFailed."""
        organization_id = work.scope.organization_id
        secret = webhook_secret(self.tools.settings, organization_id)
        async with self._place(organization_id, call.step.url):
            await lookout.check()
            if leaving():
                raise halted()
            signed = signed_headers(secret, str(call.message_id), datetime.now(UTC), body)
            headers = {**call.step.headers, "Content-Type": "application/json", **signed}
            return await self.tools.webhooks.post(call.step.url, headers, body, call.step.timeout)

    def _place(self, organization_id: UUID, url: str) -> asyncio.Semaphore:
        key = (organization_id, urlsplit(url).hostname)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = asyncio.Semaphore(PLACES)
        return place

    def _heard(self, work: Work, call: _Call, reply: Reply) -> _End:
        reason = f"webhook_answered_{reply.status}"
        match meaning(reply.status):
            case "done":
                return _done(call, call.recipient.variables if call.recipient else {}, reply)
            case "again":
                return _again(work, call, reason, reply.retry_after)
            case _:
                return _failed(call, reason)


def message_id(visit: StepVisit, root: Root | None = None) -> UUID:
    """The same for every try, also of a replay, unless somebody asked for exactly this to be said again; what receivers tell a
    repetition by."""
    again = root is not None and root.resend.get(visit.step_id) == visit.visit
    run_id = visit.run_id if root is None or again else root.run_id
    return uuid5(MESSAGES, f"{run_id}/{visit.step_id}/{visit.visit}")


# --- what is said -----------------------------------------------------------------------------------------------------


def _body(work: Work, call: _Call, recipient: Recipient) -> bytes:
    """Raises Unsendable."""
    if call.step.body is None:
        said: Any = _ids(work, call.visit)
    else:
        said = printed_json(call.step.body, recipient.contact, recipient.variables, call.organization["name"])
    body = json.dumps(said, ensure_ascii=False).encode(errors="replace")
    if len(body) > MAX_BODY:
        raise Unsendable("body_too_large")
    return body


def _ids(work: Work, visit: StepVisit) -> dict[str, Any]:
    of = {"contact_id": visit.contact_id, "run_id": visit.run_id, "journey_id": work.scope.journey_id, "version_id": work.scope.version_id}
    return {**{name: str(id) for name, id in of.items()}, "step_id": visit.step_id, "visit": visit.visit}


# --- what became of it ------------------------------------------------------------------------------------------------


def _done(call: _Call, held: Mapping[str, Any], reply: Reply) -> _End:
    found, missed = _kept(call.step, reply.body)
    values, beyond = within_bounds(held, found)
    missed |= beyond
    details: dict[str, Any] = {"status": reply.status}
    details |= {"saved": sorted(values)} if values else {}
    details |= {"not_saved": missed} if missed else {}
    return _End(StepAnswer(run_id=call.visit.run_id, details=details), Settlement(call.claimed, "done", details=details), values)


def _kept(step: CallWebhookStep, body: bytes | None) -> tuple[dict[str, Any], dict[str, str]]:
    if not step.save:
        return {}, {}
    if body is None:
        return {}, dict.fromkeys(step.save, "answer_too_large")
    try:
        return step.kept(json.loads(body))
    except (ValueError, RecursionError):
        return {}, dict.fromkeys(step.save, "answer_not_json")


def _refused(call: _Call, reason: str) -> _End:
    """It is not done, and the run goes on."""
    return _End(StepAnswer(run_id=call.visit.run_id, refused=True, reason=reason), Settlement(call.claimed, "refused", reason), {})


def _failed(call: _Call, reason: str) -> _End:
    """For good: a person decides, unless the step has a way for that. Asked again, it is tried again."""
    path = call.step.on_failure == "path"
    return _End(
        StepAnswer(run_id=call.visit.run_id, refused=path, failed=not path, reason=reason), Settlement(call.claimed, "failed", reason), {}
    )


def _again(work: Work, call: _Call, reason: str, wanted: timedelta | None = None) -> _End:
    """Later, not before the other side wants it; after MAXIMUM_TRIES not any more."""
    tries = call.claimed.attempts % MAXIMUM_TRIES  # a person who retries a run that gave up grants as many again
    if tries == 0:
        return _failed(call, f"gave_up:{reason}")
    pause = max(pause_after(tries), wanted or timedelta(0))
    answer = StepAnswer(run_id=call.visit.run_id, reason=reason, retry_at=shared_instant(work.clock.now() + pause))
    return _End(answer, Settlement(call.claimed, "claimed", reason), {})


EFFECTS: Mapping[str, Build] = {"call_webhook": CallWebhook}
