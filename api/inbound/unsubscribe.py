"""`/u/{token}`: leaving a topic with one click (RFC 8058), without a login.

GET only shows a page, for mail scanners open every link. POST withdraws, as often as it is sent.
"""

from html import escape
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse
from python_multipart.exceptions import MultipartParseError
from starlette.exceptions import HTTPException

from api.commands.routing import poke_soon
from api.dependencies import Services, services
from models.domain.audit import Actor
from models.domain.errors import NotFound
from models.domain.unsubscribe import ForgedToken, Unsubscribe, read_token
from models.store import access, changes, consents, contacts, topics
from models.store.session import OrganizationSession

router = APIRouter(tags=["unsubscribe"], include_in_schema=False)

Token = Annotated[str, Path(min_length=1, max_length=300)]
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}}
button{{font:inherit;padding:.6rem 1.2rem}}</style></head>
<body><h1>{title}</h1><p>{text}</p>{form}</body></html>
"""
_FORM: Final = (
    '<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click"><button type="submit">Unsubscribe</button></form>'
)


@router.get("/u/{token}")
async def show(request: Request, token: Token) -> HTMLResponse:
    """A page with a button. Changes nothing."""
    try:
        asked = _read(services(request), token)
        async with services(request).database.organization(asked.organization_id) as session:
            what = await _describe(session, asked)
    except NotFound:
        return _unknown()
    return _page("Unsubscribe", f"Do you want to stop receiving {what}?", _FORM)


@router.post("/u/{token}")
async def withdraw(request: Request, token: Token) -> HTMLResponse:
    """The consent is withdrawn; each time is on record."""
    try:
        asked = _read(services(request), token)
        if not await _is_one_click(request):
            return _page("Unsubscribe", "Please use the button to unsubscribe.", _FORM, 400)
        async with services(request).database.organization(asked.organization_id) as session:
            what = await _describe(session, asked)
            await _withdraw(session, asked)
            listening = await changes.listening(session)
        if listening:
            poke_soon(services(request), asked.organization_id)
    except NotFound:
        return _unknown()
    return _page("You are unsubscribed", f"You will no longer receive {what}.", "")


def _read(parts: Services, token: str) -> Unsubscribe:
    try:
        return read_token(parts.settings.derive_key("unsubscribe-links"), token)
    except ForgedToken:
        raise NotFound("link") from None


async def _is_one_click(request: Request) -> bool:
    """Mail services send the field as a form of either kind, and the page's button as well."""
    try:
        async with request.form(max_files=0, max_fields=10) as form:
            return form.get("List-Unsubscribe") == "One-Click"
    except (HTTPException, MultipartParseError):
        return False


async def _describe(session: OrganizationSession, asked: Unsubscribe) -> str:
    """Raises NotFound when contact or topic do not exist any more."""
    await contacts.get(session, asked.contact_id)
    topic = await topics.get(session, asked.topic_id)
    organization = await access.get_organization(session)
    return f"“{escape(topic.name)}” from {escape(organization.name)}"


async def _withdraw(session: OrganizationSession, asked: Unsubscribe) -> None:
    """The last line of the ledger says withdrawn, and when it was said last: a run of today must not subscribe who says so now, though
    they had left before, or a journey's step has withdrawn for them."""
    withdrawal = consents.NewConsent(
        contact_id=asked.contact_id,
        topic_id=asked.topic_id,
        channel=asked.channel,
        status="withdrawn",
        method="one_click",
        source="unsubscribe_link",
        evidence={"delivery_id": str(asked.delivery_id)},
        actor=Actor("recipient", asked.contact_id),
        occurred_at=None,
    )
    await consents.record(session, [withdrawal])


def _unknown() -> HTMLResponse:
    """The same for forged, foreign and outdated links."""
    return _page("Unknown link", "This link is not valid. Please use the link in the newest message you received.", "", 404)


def _page(title: str, text: str, form: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title=title, text=text, form=form), status, _HEADERS)
