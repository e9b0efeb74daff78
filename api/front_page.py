"""`/`: what answers here, and where the rest is. The web console will take its place."""

from html import escape
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.dependencies import ServicesOf
from api.version import VERSION

router = APIRouter(include_in_schema=False)

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Lead Stats</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:12vh auto;padding:0 1rem}}</style></head>
<body><h1>Lead Stats {version}</h1>
<p>This is the address of the API. There is no web console in this release.</p>
<ul>
<li><a href="/v1/openapi.json">Description of the API</a> (OpenAPI); <code>docs/api.md</code> of the release explains how to begin</li>
<li><a href="/v1/health">Health</a>: whether database and workflow service answer</li>
<li>{temporal}</li>
</ul></body></html>
"""
_TEMPORAL: Final = '<a href="{url}">Temporal\'s pages</a>: the workflows that carry the runs'
_ELSEWHERE: Final = "Temporal's pages, with the workflows that carry the runs, are where your Temporal is"


@router.get("/")
async def show(services: ServicesOf) -> HTMLResponse:
    """Needs no login, and tells nothing that needs one."""
    url = services.settings.temporal_ui_url
    temporal = _ELSEWHERE if url is None else _TEMPORAL.format(url=escape(url))
    return HTMLResponse(_PAGE.format(version=VERSION, temporal=temporal), headers=_HEADERS)
