"""Operations on many runs, carried out page by page."""

from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from temporalio import activity

from activities.contracts.payload import Payload

OPERATION_WORKFLOW = "OperationWorkflow"


class OperationRef(Payload):
    """An operation on many runs under way. `passes`: how often those that did not answer have been asked. `after`: how far this pass has
    come."""

    organization_id: UUID
    operation_id: UUID
    command: str
    passes: int = 0
    after: int = 0


class OperationPage(Payload):
    operation: OperationRef
    after: int = 0  # the position behind which the page begins


class OperationPageDone(Payload):
    after: int | None = None  # pass it back for the next page; None: that was the last


class OperationEnd(Payload):
    operation: OperationRef
    last: bool = False  # nobody is asked again: runs that have not answered failed


class OperationProgress(Payload):
    finished: bool


@activity.defn(name="control_page")
async def control_page(page: OperationPage) -> OperationPageDone:
    """The workflows of the operation's next runs have been told, and what each answered is on record."""
    raise NotImplementedError


@activity.defn(name="set_variables_page")
async def set_variables_page(page: OperationPage) -> OperationPageDone:
    """The operation's next runs hold the variables that it says, and their workflows will be told."""
    raise NotImplementedError


@activity.defn(name="replay_page")
async def replay_page(page: OperationPage) -> OperationPageDone:
    """The operation's next runs are replayed by new ones, and what became of each is on record."""
    raise NotImplementedError


@activity.defn(name="finish_operation")
async def finish_operation(end: OperationEnd) -> OperationProgress:
    """The operation is marked completed when every run of it is settled, or cancelled."""
    raise NotImplementedError


# How each operation is carried out, by its command: those that are not named here by `control_page`.
OPERATION_PAGES: Mapping[str, Callable[[OperationPage], Awaitable[OperationPageDone]]] = {
    "set_variables": set_variables_page,
    "replay": replay_page,
}
