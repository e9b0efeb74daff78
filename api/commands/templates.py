"""Saving templates, and showing what a contact would get. Liquid is read in threads: other requests go on meanwhile."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from api.dependencies import Caller
from models.domain.audit import NewEntry
from models.domain.errors import Invalid, Problem
from models.domain.journey.content_hash import TemplateContent
from models.domain.plain_text import text_of
from models.domain.template import shape_problems
from models.rendering import MissingValue, Rendered, RenderingFailed, analyze, message_context, render_email, render_text
from models.store import access, audit, contacts, templates
from models.store.templates import StoredVersion

PARTS = ("subject", "html", "text")


@dataclass(frozen=True)
class Preview:
    """What the contact would get, or the problems that keep it from being rendered."""

    version: StoredVersion
    rendered: Rendered | None
    problems: Sequence[Problem]


async def create_template(caller: Caller, name: str, content: TemplateContent) -> UUID:
    """The template exists with version 1.

    Raises:
        Invalid: Liquid that does not parse, an unknown filter or variable: with part, line and column.
        Conflict: the name is taken.
    """
    checked, variables = await asyncio.to_thread(check_content, content)
    async with caller.session() as session:
        template_id = await templates.create(session, name, content.channel)
        version = await templates.add_version(session, template_id, checked, variables, caller.actor.id)
        await audit.append(session, [_entry(caller, "template.created", version)])
    return template_id


async def add_version(caller: Caller, template_id: UUID, subject: str, html: str, text: str) -> StoredVersion:
    """The template has a further version; the older ones stay as they are. Raises like `create_template`, and NotFound."""
    async with caller.session() as session:
        template = await templates.get(session, template_id)
    checked, variables = await asyncio.to_thread(check_content, TemplateContent(template.channel, subject, html, text))
    async with caller.session() as session:
        version = await templates.add_version(session, template_id, checked, variables, caller.actor.id)
        await audit.append(session, [_entry(caller, "template.version_added", version)])
    return version


def _entry(caller: Caller, action: str, version: StoredVersion) -> NewEntry:
    details = {"version": version.number, "version_id": str(version.id), "content_hash": version.content_hash}
    return NewEntry(action, "template", str(version.template_id), caller.actor, details)


def check_content(content: TemplateContent) -> tuple[TemplateContent, Sequence[str]]:
    """The content as it is stored, with a text part, and the variables it reads."""
    problems = shape_problems(content)
    text_is_made = not problems and content.channel == "email" and not content.text.strip()
    if text_is_made:
        content = replace(content, text=text_of(content.html))
    found = {part: analyze(getattr(content, part), part) for part in PARTS}
    problems += [problem for part in PARTS if not (text_is_made and part == "text") for problem in found[part].problems]
    if text_is_made and not problems:
        problems += [_of_made_text(problem) for problem in found["text"].problems]
    if problems:
        raise Invalid(problems)
    return content, sorted({variable for analysis in found.values() for variable in analysis.variables})


def _of_made_text(problem: Problem) -> Problem:
    message = f"The text made from this HTML is wrong: {problem.message} Mend the Liquid around its tags, or send a text of your own."
    return Problem("html", problem.code, message)


async def preview(caller: Caller, template_id: UUID, contact_id: UUID, number: int | None, run: Mapping[str, Any]) -> Preview:
    """The message for this contact, rendered as a send would render it. Nothing is sent or written.

    Raises:
        NotFound: no such template, version or contact.
    """
    async with caller.session() as session:
        version = await templates.get_version(session, template_id, number)
        contact = await contacts.get(session, contact_id)
        organization = await access.get_organization(session)
    link = f"{caller.services.settings.public_url.rstrip('/')}/u/preview"
    context = message_context(contact.model_dump(), run, organization.name, link)
    return await asyncio.to_thread(_previewed, version, context)


def _previewed(version: StoredVersion, context: Mapping[str, Any]) -> Preview:
    try:
        if version.channel == "sms":
            return Preview(version, render_text(version.text, context), ())
        return Preview(version, render_email(version.subject, version.html, version.text, context), ())
    except MissingValue as missing:
        message = f"{missing.path} has no value for this contact. Give it one, or print it with the default filter."
        return Preview(version, None, (Problem(missing.part, "missing_value", message),))
    except RenderingFailed as failed:
        return Preview(version, None, (Problem(failed.part, "rendering_failed", failed.reason),))
