"""Which file does what a kind of step says. Adding a kind adds one line here; docs/adding-a-step.md walks through it."""

from collections.abc import Mapping

from activities.effects.call_webhook import CallWebhook
from activities.effects.effect import Build
from activities.effects.enter_journey import EnterJourney
from activities.effects.notify_team import NotifyTeam
from activities.effects.subscription import Subscribe, Unsubscribe
from activities.effects.update_contact import UpdateContact

EFFECTS: Mapping[str, Build] = {
    "update_contact": UpdateContact,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "call_webhook": CallWebhook,
    "notify_team": NotifyTeam,
    "enter_journey": EnterJourney,
}
