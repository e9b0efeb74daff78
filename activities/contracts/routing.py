"""Events and changed contacts on their way to runs."""

from uuid import UUID

from temporalio import activity

from activities.contracts.payload import Payload

ROUTING_WORKFLOW = "RoutingWorkflow"


class Routing(Payload):
    """Whose events and changes. `timed`: also look at what becomes true by the passing of time alone."""

    organization_id: UUID
    timed: bool = False


class Routed(Payload):
    """`more`: there was more than one call takes. `stuck`: some workflow could not be told yet."""

    more: bool = False
    stuck: bool = False


@activity.defn(name="route_events")
async def route_events(routing: Routing) -> Routed:
    """Accepted events and changed contacts have been matched to entries, exits, goals and waits, and the workflows concerned started and
    told."""
    raise NotImplementedError
