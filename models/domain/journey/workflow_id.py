"""Workflow ids: organization first, made here and nowhere else. Pure."""

from contextlib import suppress
from uuid import UUID


def campaign(organization_id: UUID, campaign_id: UUID) -> str:
    """The workflow that fans a campaign's audience out."""
    return f"{organization_id}/campaign/{campaign_id}"


def campaign_page(organization_id: UUID, campaign_id: UUID, page: int) -> str:
    """The workflow that carries one page of a campaign's runs."""
    return f"{organization_id}/campaign/{campaign_id}/page/{page}"


def single_run(organization_id: UUID, run_id: UUID) -> str:
    """The workflow that carries one run started over the API."""
    return f"{organization_id}/run/{run_id}"


def entry(organization_id: UUID, first_run_id: UUID) -> str:
    """The workflow that carries runs which entered together."""
    return f"{organization_id}/entry/{first_run_id}"


def routing(organization_id: UUID) -> str:
    """The workflow that matches the organization's events to its runs."""
    return f"{organization_id}/routing"


def control(organization_id: UUID, kind: str, subject_id: UUID) -> str:
    """The workflow that tells every run of a campaign or journey to pause, resume or cancel."""
    return f"{organization_id}/control/{kind}/{subject_id}"


def braking(organization_id: UUID, braking_id: UUID) -> str:
    """The workflow that pauses the runs of what was braked, and tells somebody."""
    return f"{organization_id}/braking/{braking_id}"


def publish_plan(organization_id: UUID, plan_id: UUID) -> str:
    """The workflow that carries a publish plan out."""
    return f"{organization_id}/publish-plan/{plan_id}"


def moved_runs(organization_id: UUID, plan_id: UUID, first_run_id: UUID) -> str:
    """The workflow of the new version that carries runs which a publish plan has moved, named by the first of them."""
    return f"{organization_id}/publish-plan/{plan_id}/from/{first_run_id}"


def plan_of(name: str) -> UUID | None:
    """The publish plan that moved runs to the workflow of this id; None: it was not begun by one."""
    match name.split("/"):
        case [_, "publish-plan", plan_id, "from", _]:
            return UUID(plan_id)
    return None


def replay(organization_id: UUID, first_run_id: UUID) -> str:
    """The workflow that carries replays which were asked for together, named by the first of them."""
    return f"{organization_id}/replay/{first_run_id}"


def run_operation(organization_id: UUID, operation_id: UUID) -> str:
    """The workflow that carries an operation on many runs out."""
    return f"{organization_id}/run-operation/{operation_id}"


def operation_of(name: str) -> UUID | None:
    """The operation on many runs that the workflow of this id carries out; None: it is none of those."""
    return _carried(name, "run-operation")


def executing_plan_of(name: str) -> UUID | None:
    """The publish plan that the workflow of this id carries out; None: it is none of those."""
    return _carried(name, "publish-plan")


def braking_of(name: str) -> UUID | None:
    """The braking that the workflow of this id tells of; None: it is none of those."""
    return _carried(name, "braking")


def _carried(name: str, kind: str) -> UUID | None:
    match name.split("/"):
        case [_, found, id] if found == kind:
            with suppress(ValueError):  # somebody else's
                return UUID(id)
    return None
