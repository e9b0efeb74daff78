"""What a step's message says to one contact: the same for sending, and for simulating. No I/O."""

from collections.abc import Mapping
from typing import Any

from models.domain.journey.content_hash import TemplateContent
from models.domain.journey.definition import SendStep
from models.domain.template import Unsendable
from models.rendering import MissingValue, Rendered, RenderingFailed, message_context, render_email, render_text


def printed_message(
    step: SendStep,
    template: TemplateContent | None,
    contact: Mapping[str, Any],
    variables: Mapping[str, Any],
    organization_name: str,
    unsubscribe_url: str | None,
) -> Rendered:
    """The message of a send step, from a row of contacts and the run's variables.

    Raises:
        Unsendable: a printed value is missing, or the template cannot be rendered or sent over this channel.
    """
    if step.channel != "email":
        raise Unsendable("unsupported_channel")
    if template is None:
        raise Unsendable("no_template")
    context = message_context(contact, variables, organization_name, unsubscribe_url)
    try:
        return render_email(template.subject, template.html, template.text, context)
    except MissingValue as missing:
        raise Unsendable(f"missing_value:{missing.path}") from None
    except RenderingFailed as failed:
        raise Unsendable(f"rendering_failed:{failed.part}") from None


def printed_mail(subject: str, text: str, contact: Mapping[str, Any], variables: Mapping[str, Any], organization_name: str) -> Rendered:
    """A plain mail about a contact, to somebody else. Raises Unsendable like `printed_message`."""
    try:
        return render_email(subject, "", text, message_context(contact, variables, organization_name, None))
    except MissingValue as missing:
        raise Unsendable(f"missing_value:{missing.path}") from None
    except RenderingFailed as failed:
        raise Unsendable(f"rendering_failed:{failed.part}") from None


def printed_json(value: Any, contact: Mapping[str, Any], variables: Mapping[str, Any], organization_name: str) -> Any:
    """The JSON with every text in it printed for the contact. Raises Unsendable."""
    context = message_context(contact, variables, organization_name, None)
    try:
        return _printed(value, context)
    except MissingValue as missing:
        raise Unsendable(f"missing_value:{missing.path}") from None
    except RenderingFailed:
        raise Unsendable("rendering_failed:body") from None


def _printed(value: Any, context: Mapping[str, Any]) -> Any:
    match value:
        case str():
            return render_text(value, context).text if value else ""
        case dict():
            return {key: _printed(inner, context) for key, inner in value.items()}
        case list():
            return [_printed(inner, context) for inner in value]
    return value
