"""The HTTP application."""

import json
from typing import cast

from fastapi import FastAPI

from api.bodies import Bodies
from api.boundary import Boundary
from api.dependencies import Services
from api.errors import install_handlers
from api.front_page import router as front_page
from api.idempotency import Idempotency
from api.inbound import unsubscribe
from api.openapi import describe
from api.rest import (
    api_keys,
    approvals,
    audit_entries,
    brakes,
    campaign_previews,
    campaigns,
    cases,
    connections,
    consents,
    contact_imports,
    contacts,
    deliveries,
    differences,
    drafts,
    entries,
    events,
    failures,
    findings,
    health,
    histories,
    journeys,
    members,
    organization,
    portable,
    publish_plans,
    replays,
    resumptions,
    run_operations,
    runs,
    sandbox_messages,
    segments,
    session,
    simulations,
    suppressions,
    templates,
    topics,
)
from api.version import VERSION

ROUTERS = (
    contacts.router,
    contact_imports.router,
    topics.router,
    consents.router,
    events.router,
    suppressions.router,
    segments.router,
    templates.router,
    connections.router,
    journeys.router,
    drafts.router,
    simulations.router,
    cases.router,
    portable.router,
    differences.router,
    approvals.router,
    publish_plans.router,
    brakes.router,
    campaigns.router,
    campaign_previews.router,
    runs.router,
    replays.router,
    run_operations.router,
    histories.router,
    findings.router,
    resumptions.router,
    entries.router,
    failures.router,
    deliveries.router,
    audit_entries.router,
    api_keys.router,
    session.router,
    organization.router,
    members.router,
    sandbox_messages.router,
    health.router,
)


def create_app(services: Services) -> FastAPI:
    """The application over these services. No I/O happens here."""
    app = FastAPI(title="Lead Stats", version=VERSION, openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None)
    app.state.services = services
    install_handlers(app)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
    app.include_router(unsubscribe.router)
    app.include_router(front_page)
    app.add_middleware(Idempotency, services=services)
    app.add_middleware(Bodies, services=services)
    app.add_middleware(Boundary)  # the last one added is the outermost
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way to replace it
    return app


def openapi_document() -> str:
    """`docs/openapi.json`: the API's description, made without any service."""
    app = create_app(cast("Services", None))  # routes touch services only when they are called
    return json.dumps(app.openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(openapi_document(), end="")
