"""Starting the workflows of replays: the rows come first, and a row without a workflow can always be started."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from activities.contracts import JOURNEY_WORKFLOW, JourneyInput, Scope
from api.commands import temporal
from api.dependencies import Services
from models.domain.journey.definition import Definition
from models.domain.journey.run import RunState
from models.store import handovers, journey_versions, replays
from models.store.replays import StartingWorkflow
from models.store.session import OrganizationSession

OVERDUE = timedelta(seconds=10)  # a replay that has recorded nothing for so long may lack its workflow


async def start_workflows(services: Services, organization_id: UUID, names: Sequence[str]) -> None:
    """Each of these workflows is running, or has run. Raises Unavailable."""
    async with services.database.organization(organization_id) as session:
        inputs = await _inputs(session, names)
    for name, given in inputs.items():
        scope = given.scope
        found_by = temporal.attributes(organization_id, scope.journey_id, scope.version_id, scope.campaign_id)
        await temporal.start(services, JOURNEY_WORKFLOW, given, name, found_by)


async def start_missing_workflows(services: Services, organization_id: UUID, alive: Callable[[], None], limit: int = 100) -> int:
    """Replays that have recorded nothing for ten seconds have their workflows. Answers how many workflows were looked at.

    Safe to repeat and to run beside itself: a workflow that exists, or has existed, is not started again.
    """
    async with services.database.organization(organization_id) as session:
        names = await replays.overdue(session, OVERDUE, limit)
    for name in names:
        alive()
        await start_workflows(services, organization_id, [name])
    return len(names)


async def _inputs(session: OrganizationSession, names: Sequence[str]) -> dict[str, JourneyInput]:
    """By workflow id, for those of `names` whose replays have recorded nothing: starting them, also again, is harmless.

    A replay of a paused journey or campaign starts held. Variables stay in the runs' rows, and payloads hold ids only.
    """
    starting = await replays.starting(session, names)
    versions = await journey_versions.by_id(session, [each.version_id for each in starting])
    definitions = {id: Definition.model_validate(version.definition) for id, version in versions.items()}
    flags = {key: await handovers.flags(session, *key) for key in dict.fromkeys((each.journey_id, each.campaign_id) for each in starting)}
    return {
        each.name: JourneyInput(
            scope=_scope(session, each),
            definition=definitions[each.version_id],
            runs=_states(each),
            held_by=sorted(said.held_by),
            cancelled=said.cancelled or all(run.cancelled for run in each.runs),
        )
        for each in starting
        if (said := flags[each.journey_id, each.campaign_id])
    }


def _scope(session: OrganizationSession, starting: StartingWorkflow) -> Scope:
    return Scope(
        organization_id=session.organization_id,
        journey_id=starting.journey_id,
        version_id=starting.version_id,
        campaign_id=starting.campaign_id,
        replay=True,
    )


def _states(starting: StartingWorkflow) -> list[RunState]:
    return [RunState(run_id=run.id, contact_id=run.contact_id, step_id=run.step_id, visits=dict(run.visits)) for run in starting.runs]
