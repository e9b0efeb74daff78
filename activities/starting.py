"""Starting workflows, the one way: an id starts once and never again, unless it may after an end that it did not choose; and the workflow
is found by the ids of what it is about."""

from datetime import timedelta
from uuid import UUID

from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError

from activities.contracts.campaign import CAMPAIGN_WORKFLOW, CampaignRef
from activities.contracts.control import CONTROL_WORKFLOW, Control
from activities.contracts.execution import fair_share
from activities.contracts.journey import JOURNEY_WORKFLOW, JourneyInput
from activities.contracts.payload import Payload, Scope
from activities.contracts.search_attributes import CAMPAIGN_ID, JOURNEY_ID, ORGANIZATION_ID, VERSION_ID
from models.domain.journey import workflow_id

_ONCE, _ANEW = WorkflowIDReusePolicy.REJECT_DUPLICATE, WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY


def attributes(
    organization_id: UUID, journey_id: UUID | None = None, version_id: UUID | None = None, campaign_id: UUID | None = None
) -> TypedSearchAttributes:
    """Search attributes for those of the ids that are given."""
    given = ((ORGANIZATION_ID, organization_id), (JOURNEY_ID, journey_id), (VERSION_ID, version_id), (CAMPAIGN_ID, campaign_id))
    return TypedSearchAttributes([SearchAttributePair(key, str(value)) for key, value in given if value is not None])


def attributes_of(scope: Scope) -> TypedSearchAttributes:
    return attributes(scope.organization_id, scope.journey_id, scope.version_id, scope.campaign_id)


async def start_once(
    temporal: Client,
    task_queue: str,
    workflow: str,
    argument: Payload,
    name: str,
    found_by: TypedSearchAttributes,
    patience: timedelta | None = None,
    *,
    restarts: bool = False,
) -> bool:
    """The workflow is running, or has run; whether it was started just now. Safe to repeat. `patience`: how long to wait for Temporal.
    `restarts`: it has run only if it completed; one that was terminated or cancelled, failed or timed out begins anew. For workflows that
    do nothing twice when they do.

    Raises:
        RPCError: Temporal did not answer; the start may still have happened.
    """
    try:
        await temporal.start_workflow(
            workflow,
            argument,
            id=name,
            task_queue=task_queue,
            id_reuse_policy=_ANEW if restarts else _ONCE,
            search_attributes=found_by,
            priority=fair_share(found_by[ORGANIZATION_ID]),
            rpc_timeout=patience,
        )
    except WorkflowAlreadyStartedError:
        return False
    return True


async def signal_with_start(
    temporal: Client,
    task_queue: str,
    workflow: str,
    said: Payload,
    name: str,
    signal: str,
    found_by: TypedSearchAttributes,
    patience: timedelta | None = None,
) -> None:
    """The workflow of this id has heard the signal; it is started, with the same argument, where it does not run. `patience`: how long to
    wait for Temporal.

    Raises:
        RPCError: Temporal did not answer; the signal may have been heard all the same.
    """
    await temporal.start_workflow(
        workflow,
        said,
        id=name,
        task_queue=task_queue,
        start_signal=signal,
        start_signal_args=[said],
        search_attributes=found_by,
        priority=fair_share(found_by[ORGANIZATION_ID]),
        rpc_timeout=patience,
    )


async def say_control(
    temporal: Client, task_queue: str, control: Control, found_by: TypedSearchAttributes, patience: timedelta | None = None
) -> None:
    """The control workflow of the campaign, journey or connection has heard the word, after all words said before. Raises as
    `signal_with_start`."""
    await temporal.start_workflow(
        CONTROL_WORKFLOW,
        id=workflow_id.control(control.organization_id, control.kind, control.id),
        task_queue=task_queue,
        start_signal="control",
        start_signal_args=[control],
        search_attributes=found_by,
        priority=fair_share(str(control.organization_id)),
        rpc_timeout=patience,
    )


async def start_campaign(temporal: Client, task_queue: str, scope: Scope, *, scheduled: bool) -> bool:
    """As `start_once`, of the CampaignWorkflow. It begins anew after an end that it did not choose: a campaign keeps the audience that it
    has taken, and a page that has begun is left alone."""
    assert scope.campaign_id is not None
    given = CampaignRef(organization_id=scope.organization_id, campaign_id=scope.campaign_id, scheduled=scheduled)
    name = workflow_id.campaign(scope.organization_id, scope.campaign_id)
    return await start_once(temporal, task_queue, CAMPAIGN_WORKFLOW, given, name, attributes_of(scope), restarts=True)


async def start_journey(temporal: Client, task_queue: str, name: str, given: JourneyInput) -> bool:
    """As `start_once`, of the JourneyWorkflow that carries these runs."""
    return await start_once(temporal, task_queue, JOURNEY_WORKFLOW, given, name, attributes_of(given.scope))
