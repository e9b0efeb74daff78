"""Which function does in memory what a kind of step says. Adding a kind adds one line here: docs/adding-a-step.md. Pure."""

from collections.abc import Mapping

from models.domain.simulation.effects.call_webhook import call
from models.domain.simulation.effects.effect import Effect
from models.domain.simulation.effects.enter_journey import enter
from models.domain.simulation.effects.notify_team import notify
from models.domain.simulation.effects.subscription import subscribe, unsubscribe
from models.domain.simulation.effects.update_contact import update

EFFECTS: Mapping[str, Effect] = {
    "update_contact": update,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
    "call_webhook": call,
    "notify_team": notify,
    "enter_journey": enter,
}
ANSWERED = frozenset({"call_webhook"})  # the scenario says what another system answers
