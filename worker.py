"""The worker process: carries workflows and runs activities. Builds and connects; decides nothing."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import Worker, WorkerDeploymentConfig

from activities.archiving import ArchivingActivities
from activities.audit import AuditActivities
from activities.braking import BrakingActivities, BrakingStarter
from activities.branches import BranchActivities
from activities.campaign import CampaignActivities
from activities.consent import ConsentActivities
from activities.contracts.execution import send_queue
from activities.control import ControlActivities
from activities.effects.effect import EffectTools
from activities.handover import HandOverActivities
from activities.lines import Lines
from activities.moves import MoveActivities
from activities.operations import OperationActivities
from activities.providers.destination import Destinations
from activities.providers.registry import Providers
from activities.providers.webhook import Webhooks
from activities.quiet_hours import QuietHoursActivities
from activities.reconciling import ReconcilingActivities
from activities.reconciling_records import RecordsActivities
from activities.replaying import ReplayActivities
from activities.routing import RoutingActivities
from activities.send import SendActivities
from activities.steps import StepActivities
from activities.versions import Versions
from activities.waits import WaitActivities
from activities.watch import Watch
from api.commands.upkeep import UpkeepActivities
from api.dependencies import Services
from models.settings import Settings
from models.store.session import Database
from workflows.braking import BrakingWorkflow
from workflows.campaign import CampaignWorkflow, ControlWorkflow
from workflows.connection import connect
from workflows.journey import JourneyWorkflow
from workflows.moves import MovePlanWorkflow
from workflows.occurrence import OccurrenceWorkflow
from workflows.operations import OperationWorkflow
from workflows.reconciling import ReconcileWorkflow
from workflows.routing import RoutingWorkflow
from workflows.schedules import ensure_reconciler, ensure_upkeep
from workflows.upkeep import UpkeepWorkflow

log = logging.getLogger(__name__)

WORKFLOWS = (
    JourneyWorkflow,
    CampaignWorkflow,
    OccurrenceWorkflow,
    ControlWorkflow,
    RoutingWorkflow,
    MovePlanWorkflow,
    OperationWorkflow,
    BrakingWorkflow,
    UpkeepWorkflow,
    ReconcileWorkflow,
)
DEPLOYMENT = "leadstats"  # as Temporal's worker versioning knows us
GRACE = timedelta(seconds=3)  # for messages that are past the point of no return; `up` kills a worker after four
# A send activity mostly waits for its connection's rate, and its messages share a bounded number of places.
CONCURRENT_SENDS = 200
SCHEDULES_EVERY = timedelta(minutes=1)
CONCURRENT_RECORDS = 20  # each holds a database connection


@dataclass(frozen=True)
class Parts:
    """What a worker process runs on. `close` ends what was opened for it; client and database are the caller's."""

    temporal: Client
    providers: Providers
    webhooks: Webhooks
    records: list[Callable[..., Any]]
    sends: list[Callable[..., Any]]

    @classmethod
    def build(cls, temporal: Client, database: Database, settings: Settings) -> Self:
        versions = Versions()
        providers = Providers(settings)
        lines = Lines(providers, settings.send_concurrency)
        braked = BrakingStarter(temporal, settings.task_queue)
        braking = BrakingActivities(database, settings, temporal, lines)
        records = (
            ConsentActivities(database, settings, versions),
            QuietHoursActivities(database, versions),
            BranchActivities(database, versions),
            WaitActivities(database, versions),
            RoutingActivities(database, settings, versions, temporal),
            AuditActivities(database, braked),
            CampaignActivities(database, settings, versions, temporal),
            ControlActivities(database, temporal),
            HandOverActivities(database, settings, versions, temporal),
            MoveActivities(database, settings, temporal),
            OperationActivities(database, temporal),
            braking,
            ReconcilingActivities(database, temporal, settings.task_queue),
            RecordsActivities(database, temporal),
            ArchivingActivities(database, temporal),
            ReplayActivities(database, temporal),
            UpkeepActivities(Services(settings=settings, database=database, temporal=temporal)),
        )
        webhooks = Webhooks(Destinations(settings))
        steps = StepActivities(EffectTools(database, settings, versions, lines, webhooks, Watch(database)), temporal)
        sends = (SendActivities(database, settings, versions, lines, braked), steps, braking)
        return cls(temporal, providers, webhooks, _methods(*records, steps), _methods(*sends))

    async def close(self) -> None:
        await self.providers.close()
        await self.webhooks.close()


def _methods(*activities: Any) -> list[Callable[..., Any]]:
    return [method for each in activities for method in each.methods()]


def workers(parts: Parts, settings: Settings) -> tuple[Worker, Worker]:
    """One for workflows, checks and records, one for sends and slow steps, which have a queue of their own."""
    return (
        Worker(
            parts.temporal,
            task_queue=settings.task_queue,
            workflows=WORKFLOWS,
            activities=parts.records,
            max_cached_workflows=settings.max_cached_workflows,
            max_concurrent_activities=CONCURRENT_RECORDS,
            graceful_shutdown_timeout=GRACE,
            deployment_config=_deployment(settings),
        ),
        Worker(
            parts.temporal,
            task_queue=send_queue(settings.task_queue),
            activities=parts.sends,
            max_concurrent_activities=CONCURRENT_SENDS,
            graceful_shutdown_timeout=GRACE,
            deployment_config=_deployment(settings),
        ),
    )


def _deployment(settings: Settings) -> WorkerDeploymentConfig | None:
    """Runs last weeks, so they move on to the newest build that is current; patches keep them deterministic."""
    if settings.worker_build_id is None:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=DEPLOYMENT, build_id=settings.worker_build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


async def run(settings: Settings) -> None:
    """Works until cancelled, then finishes what must not be broken off."""
    telemetry = TelemetryConfig(metrics=PrometheusConfig(bind_address=settings.metrics_bind)) if settings.metrics_bind else None
    runtime = Runtime(telemetry=telemetry) if telemetry else None
    async with AsyncExitStack() as running:
        database = Database(settings.database_url.get_secret_value(), settings.pool_size)
        running.push_async_callback(database.close)
        parts = Parts.build(await connect(settings, patient=True, runtime=runtime), database, settings)
        running.push_async_callback(parts.close)
        for each in workers(parts, settings):
            await running.enter_async_context(each)
        await _ensure_schedules(parts.temporal, settings)
        await _keep_schedules(parts.temporal, settings)


async def _ensure_schedules(temporal: Client, settings: Settings) -> None:
    await ensure_upkeep(temporal, settings.task_queue)
    await ensure_reconciler(temporal, settings.task_queue)


async def _keep_schedules(temporal: Client, settings: Settings) -> None:
    """Who deletes them in Temporal does not stop what is looked after: they are made again. Never ends."""
    while True:
        await asyncio.sleep(SCHEDULES_EVERY.total_seconds())
        try:
            await _ensure_schedules(temporal, settings)
        except RPCError as error:
            log.warning("the schedules could not be looked at: %s; they are in a minute", error.status.name)
