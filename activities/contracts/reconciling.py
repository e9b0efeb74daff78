"""Rows and workflows are compared, and histories archived."""

from datetime import timedelta

from temporalio import activity

from activities.contracts.payload import Payload

RECONCILE_WORKFLOW = "ReconcileWorkflow"
RECONCILE_EVERY = timedelta(minutes=1)


class Reconcile(Payload):
    """What the reconciler asks of an activity: everything, in every organization."""


class Reconciled(Payload):
    """Findings that were opened and resolved, runs that were found lost, histories that were archived."""

    opened: int = 0
    resolved: int = 0
    lost: int = 0
    archived: int = 0


@activity.defn(name="compare_workflows")
async def compare_workflows(reconcile: Reconcile) -> Reconciled:
    """Rows and workflows have been compared, and workflows in trouble found; runs whose workflow is gone need attention."""
    raise NotImplementedError


@activity.defn(name="compare_records")
async def compare_records(reconcile: Reconcile) -> Reconciled:
    """The records have been looked through: waits that nothing can end, volumes, conservation, histories that are missing."""
    raise NotImplementedError


@activity.defn(name="archive_histories")
async def archive_histories(reconcile: Reconcile) -> Reconciled:
    """Histories of journey workflows that have closed are in the archive."""
    raise NotImplementedError
