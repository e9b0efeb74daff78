"""What a template may be, and the hash that stands for a version. Pure."""

import hashlib
from dataclasses import asdict

from models.domain.errors import Problem
from models.domain.journey.content_hash import TemplateContent, canonical

LIMIT = 200_000  # characters of one part
SUBJECT_LIMIT = 2_000
SMS_LIMIT = 4_000


class Unsendable(Exception):
    """This message's content can never go. `reason` is a code, with the path of the field where there is one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason[:200]


def shape_problems(content: TemplateContent) -> list[Problem]:
    """What is missing or too much for the channel, before any Liquid is read."""
    match content.channel:
        case "email":
            return _email_problems(content)
        case "sms":
            return _sms_problems(content)
        case _:
            return [Problem("channel", "unknown_channel", "Templates are for email or sms.")]


def _email_problems(content: TemplateContent) -> list[Problem]:
    problems = []
    if not content.subject.strip():
        problems.append(Problem("subject", "required", "A mail needs a subject."))
    if not (content.html.strip() or content.text.strip()):
        problems.append(Problem("html", "required", "A mail needs html, text or both."))
    return problems + _too_long("subject", content.subject, SUBJECT_LIMIT) + _too_long("html", content.html, LIMIT)


def _sms_problems(content: TemplateContent) -> list[Problem]:
    problems = [Problem(part, "not_for_sms", "An SMS has only text.") for part in ("subject", "html") if getattr(content, part).strip()]
    if not content.text.strip():
        problems.append(Problem("text", "required", "An SMS needs text."))
    return problems + _too_long("text", content.text, SMS_LIMIT)


def _too_long(part: str, source: str, limit: int) -> list[Problem]:
    return [Problem(part, "too_long", f"Use at most {limit} characters.")] if len(source) > limit else []


def version_hash(content: TemplateContent) -> str:
    """Hex SHA-256 of the version's channel, subject, HTML and text."""
    return hashlib.sha256(canonical(asdict(content))).hexdigest()
