"""What an SMTP server's reply means. The enhanced code (RFC 3463) wins over the basic one.

Sources: RFC 5321 section 4.2, RFC 3463, RFC 4954 section 6; reference providers.md 6.2 and compliance.md 4.6 (2026-11).
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from activities.contracts.sending import SendOutcome
from activities.providers.port import ProviderAnswer, broken

Phase = Literal["connect", "tls", "auth", "mail", "rcpt", "data", "body"]

SOON = timedelta(seconds=10)
LATER = timedelta(seconds=60)
GREYLISTED = timedelta(minutes=5)  # servers that greylist want at least this
FULL = timedelta(hours=1)

_ENHANCED = re.compile(r"\s*([245])\.(\d{1,3})\.(\d{1,3})\b")
_ACCOUNT = (530, 534, 535, 538)  # who we are, whatever the phase

_RECIPIENT = {
    "5.1.0": "address_refused",
    "5.1.1": "mailbox_unknown",
    "5.1.2": "domain_unknown",
    "5.1.3": "address_invalid",
    "5.1.6": "mailbox_moved",
    "5.1.10": "domain_refuses_mail",
    "5.2.1": "mailbox_disabled",
    "5.2.2": "mailbox_full",
    "5.4.1": "no_route",
    "5.4.4": "domain_unknown",
    "5.4.7": "no_route",
}
_RECIPIENT_BASIC = {550: "mailbox_unknown", 551: "mailbox_moved", 552: "mailbox_full", 553: "address_invalid"}
_CONTENT = {"5.2.3": "too_large", "5.3.4": "too_large", "5.6.0": "malformed"}


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    enhanced: str | None  # "5.1.1"

    @classmethod
    def of(cls, code: int, text: str) -> "Reply":
        found = _ENHANCED.match(text)
        # A contradiction between the two codes: the basic one is the protocol's.
        if found is None or found[1] != str(code)[0]:
            return cls(code, None)
        return cls(code, ".".join(found.groups()))


def meaning(phase: Phase, reply: Reply) -> ProviderAnswer:
    """What a definite refusal in this phase means. A definite refusal was certainly not accepted."""
    if reply.code in _ACCOUNT:
        return broken("authentication_failed")
    if 400 <= reply.code < 500:
        return ProviderAnswer(SendOutcome.TRANSIENT, f"{phase}_{reply.code}", _patience(phase, reply))
    if not 500 <= reply.code < 600:
        return ProviderAnswer(SendOutcome.TRANSIENT, f"{phase}_unexpected_{reply.code}", LATER)
    match phase:
        case "connect":
            return ProviderAnswer(SendOutcome.TRANSIENT, f"connect_{reply.code}", LATER)
        case "tls":
            return broken("tls_refused")
        case "auth":
            return broken("auth_refused")
        case "mail":
            return _mail_refused(reply)
        case "rcpt":
            return _recipient_refused(reply)
        case "data" | "body":
            return _content_refused(reply)


def _patience(phase: Phase, reply: Reply) -> timedelta:
    if reply.enhanced is not None and reply.enhanced.startswith("4.3."):
        return SOON  # the server's own trouble, not an opinion of us
    if reply.enhanced == "4.2.2":
        return FULL
    if reply.code == 421 or phase in ("connect", "tls", "auth", "mail"):
        return LATER
    return GREYLISTED


def _mail_refused(reply: Reply) -> ProviderAnswer:
    if reply.code in (500, 502, 503):
        return ProviderAnswer(SendOutcome.TRANSIENT, f"mail_{reply.code}", LATER)  # out of step with each other
    if reply.code == 552 or reply.enhanced in _CONTENT:
        return ProviderAnswer(SendOutcome.CONTENT_PERMANENT, "too_large")
    return broken("sender_refused")


def _recipient_refused(reply: Reply) -> ProviderAnswer:
    if reply.code in (500, 502, 503):
        return ProviderAnswer(SendOutcome.TRANSIENT, f"rcpt_{reply.code}", LATER)
    if reply.enhanced is not None and reply.enhanced.startswith("5.7."):
        return ProviderAnswer(SendOutcome.CONTENT_PERMANENT, "policy_refused")  # about us, not about the recipient
    reason = _RECIPIENT.get(reply.enhanced or "") or _RECIPIENT_BASIC.get(reply.code, "recipient_refused")
    return ProviderAnswer(SendOutcome.RECIPIENT_PERMANENT, reason)


def _content_refused(reply: Reply) -> ProviderAnswer:
    enhanced = reply.enhanced or ""
    if enhanced in _RECIPIENT:
        return ProviderAnswer(SendOutcome.RECIPIENT_PERMANENT, _RECIPIENT[enhanced])
    if enhanced in _CONTENT or (reply.code == 552 and not enhanced):
        return ProviderAnswer(SendOutcome.CONTENT_PERMANENT, _CONTENT.get(enhanced, "too_large"))
    policy = reply.code in (550, 554) or enhanced.startswith("5.7.")
    return ProviderAnswer(SendOutcome.CONTENT_PERMANENT, "policy_refused" if policy else "content_refused")
