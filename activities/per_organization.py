"""One look at every organization. One's trouble is not another's: all are looked at."""

import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from temporalio.exceptions import ApplicationError

from activities.contracts.reconciling import Reconciled
from models.store import access
from models.store.session import Database

log = logging.getLogger(__name__)


async def in_each_organization(database: Database, what: str, look: Callable[[UUID], Awaitable[Reconciled]]) -> Reconciled:
    """What the looks have come to, together. `what` they look at is said of those that fail; why, only by the fault's type.

    Raises:
        ApplicationError: some organization could not be looked at; to be repeated.
    """
    async with database.outside() as session:
        organizations = await access.organizations_to_reconcile(session)
    total, failed = Reconciled(), 0
    for organization_id in organizations:
        try:
            total = _added(total, await look(organization_id))
        except Exception as error:
            failed += 1
            log.error("reconciler: %s in the %s of organization %s", type(error).__name__, what, organization_id)
    if failed:
        raise ApplicationError(
            f"The {what} of {failed} of {len(organizations)} organizations could not be looked at.", type="NotReconciled"
        )
    return total


def _added(one: Reconciled, other: Reconciled) -> Reconciled:
    return Reconciled(opened=one.opened + other.opened, resolved=one.resolved + other.resolved, lost=one.lost + other.lost)
