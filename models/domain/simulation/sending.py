"""How a message of a simulated run is judged, printed and handed over. Pure."""

from collections.abc import Mapping

from models.domain.decision import ConsentFacts, Decision, HourFacts, Outcome, decide_consent, decide_hours
from models.domain.journey import interpreter
from models.domain.journey.definition import SendStep
from models.domain.quiet_hours import choose_zone, read_window
from models.domain.simulation.position import Position
from models.domain.simulation.surroundings import Message
from models.domain.simulation.trip import Judged, Sent
from models.domain.template import Unsendable

# What providers say, as the workflow hears it: the reason of the run's change, and whether a person has to decide.
_ANSWERS: Mapping[str, tuple[str, bool]] = {
    "bounced": ("mailbox_unknown", False),
    "opted_out": ("opted_out", False),
    "content_refused": ("content_refused", True),
    "gave_up": ("gave_up:transient", True),
    "unknown": ("unknown", True),
}


class Sending(Position):
    """What the checks and the provider say."""

    def send(self) -> None:
        """consent-check → quiet-hours → send."""
        step = self._step()
        assert isinstance(step, SendStep)
        for check, decision in (("consent", self._consent(step)), ("quiet_hours", self._hours(step))):
            self.trip.decisions.append(Judged(self.now, check, self.state.step_id or "", self.state.visit, self.state.round, decision))
            if decision.outcome is not Outcome.SEND:
                return self._obey(decision)
        if (self.state.step_id, self.state.visit) in self.doubtful:
            return self._apply(interpreter.park(self.state, "unknown"))
        try:
            template = self.plan.surroundings.templates.get(step.template_version_id) if step.template_version_id else None
            message = self.plan.printer.message(step, template, self.person.row, self.variables)
        except Unsendable as unsendable:
            return self._apply(interpreter.park(self.state, unsendable.reason))
        self._hand_over(step, message)

    def _consent(self, step: SendStep) -> Decision:
        topic = self.plan.surroundings.topics.get(step.topic_id) if step.topic_id else None
        said = self.person.consents.get((step.topic_id, step.channel)) if step.topic_id else None
        facts = ConsentFacts(
            channel=step.channel,
            purpose=step.purpose,
            topic_id=step.topic_id,
            organization_status="active",  # a suspension only makes everything later, nobody knows how much
            contact_exists=True,
            has_address=self.person.address(step.channel) is not None,
            suppression_id=self.person.suppression(step.channel),
            topic_exists=topic is not None,
            topic_archived=topic is not None and topic.archived,
            consent=said.line if said is not None else None,
        )
        return decide_consent(facts, self.now)

    def _hours(self, step: SendStep) -> Decision:
        around = self.plan.surroundings
        zone = choose_zone(self.person.fields.get("timezone"), around.timezone)
        window = read_window(around.quiet_hours, step.channel)
        return decide_hours(HourFacts(step.channel, step.purpose, window, zone, step.in_quiet_hours == "drop"), self.now)

    def _obey(self, decision: Decision) -> None:
        reason = str(decision.reason or decision.outcome)
        if decision.outcome is Outcome.HOLD and decision.hold_until is not None:
            self._apply(interpreter.held(self.state, decision.hold_until, reason))
        else:
            self._apply(interpreter.not_sent(self.definition, self.state, self.now, reason))

    def _hand_over(self, step: SendStep, message: Message) -> None:
        step_id, visit = self.state.step_id or "", self.state.visit
        outcome = self.plan.world.sends.get(step_id, "accepted")
        address = self.person.address(step.channel) or ""
        self.trip.messages.append(Sent(self.now, step_id, visit, step.channel, address, message, outcome))
        if outcome == "opted_out":
            self.person.suppress(step.channel)
        if outcome == "unknown":
            self.doubtful.add((step_id, visit))
        if outcome == "accepted":
            self._apply(interpreter.sent(self.definition, self.state, self.now, {}))
            return
        reason, decide = _ANSWERS[outcome]
        parked = interpreter.park(self.state, reason) if decide else None
        self._apply(parked or interpreter.not_sent(self.definition, self.state, self.now, reason))
