"""The demo's journey and what its mails say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXTS = Path(__file__).with_name("templates")
ATTRIBUTES = {
    "plan": "string",
    "seats": "integer",
    "lifetime_value": "number",
    "customer_since": "date",
    "beta_tester": "boolean",
    "interests": "strings",
    "company": "string",
    "note": "string",
}
PAYING = ("team", "business")


@dataclass(frozen=True)
class Mail:
    """A template and the topic that its recipients must have agreed to."""

    name: str
    topic: str
    subject: str  # Liquid

    def template(self, step: str) -> dict[str, str]:
        """The body of `POST /v1/templates`. Its plain text is made from the HTML."""
        return {"name": self.name, "channel": "email", "subject": self.subject, "html": (TEXTS / f"{step}.html").read_text()}


MAILS: Mapping[str, Mail] = {
    "welcome": Mail("Welcome", "newsletter", 'Welcome, {{ contact.first_name | default: "friend" }}'),
    "whats_new": Mail("What is new", "product_news", "What is new on your {{ contact.attributes.plan | capitalize }} plan"),
    "tips": Mail("Three tips", "newsletter", '{{ contact.first_name | default: "Hello" }}, three tips to begin with'),
    "invitation": Mail("Invitation", "events", "You are invited{% if contact.first_name %}, {{ contact.first_name }}{% endif %}"),
}


def definition(templates: Mapping[str, str], topics: Mapping[str, str]) -> dict[str, Any]:
    """The journey's draft. `templates` by step and `topics` by key hold ids."""

    def send(step: str, then: str | None) -> dict[str, Any]:
        mail = MAILS[step]
        return {"kind": "send", "name": mail.name, "template_id": templates[step], "topic_id": topics[mail.topic], "next": then}

    paying = {"field": "attributes.plan", "is": "in", "value": list(PAYING)}
    return {
        "language": 1,
        "start": "welcome",
        "steps": {
            "welcome": send("welcome", "settle_in"),
            "settle_in": {"kind": "wait", "name": "Let them settle in", "duration": "PT3S", "next": "by_plan"},
            "by_plan": {
                "kind": "branch",
                "name": "Which plan?",
                "conditions": [{"name": "Paying customers", "when": paying, "next": "whats_new"}],
                "otherwise": "tips",
            },
            "whats_new": send("whats_new", "breathe"),
            "tips": send("tips", "breathe"),
            "breathe": {"kind": "wait", "name": "Give them a break", "duration": "PT2S", "next": "invitation"},
            "invitation": send("invitation", None),
        },
    }
