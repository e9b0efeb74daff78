"""The reconciler's look through the records: waits that nothing can end, contacts that go round, missed occurrences, volumes that fell
to nothing, conservation, and histories that are missing. No workflow is asked, but for the last."""

from collections.abc import Callable
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

from temporalio import activity
from temporalio.client import Client

from activities.archiving import Archive
from activities.contracts.reconciling import Reconcile, Reconciled
from activities.heartbeat import heartbeating
from activities.observed import GOES_ON, Observer
from activities.per_organization import in_each_organization
from activities.reconciler_rules import Patience
from models.domain.conservation import Balance
from models.domain.findings import SPANS, Kind, Severity, Sighting, Span, fell_to_nothing
from models.domain.journey.entry import MAX_LED
from models.domain.journey.run import Phase
from models.store import carriers, conservation, findings, occurrences, round_trips, stranded_waits, volumes
from models.store.ids import first_id
from models.store.occurrences import Missed
from models.store.round_trips import RoundTrip
from models.store.session import Database, OrganizationSession
from models.store.stranded_waits import Stranded
from models.store.volumes import Volume
from models.tables.base import utc_now
from models.tables.findings import OrganizationCheck

SILENT = timedelta(days=30)
VOLUMES_EVERY = timedelta(minutes=10)  # they fall by hours; counting them reads the rows of those hours
TIMES_SHOWN = 10  # of the occurrences that a campaign has missed, the last ones
HISTORIES_AT_MOST = 100  # workflows of an organization whose archive is looked for in one round


class RecordsActivities:
    def __init__(self, database: Database, temporal: Client, patience: Patience | None = None) -> None:
        self.database = database
        self.temporal = temporal
        self.patience = patience or Patience()
        self.archive = Archive(database, temporal)

    def methods(self) -> list[Callable[..., Any]]:
        return [self.compare_records]

    @activity.defn(name="compare_records")
    async def compare_records(self, reconcile: Reconcile) -> Reconciled:
        """Findings say what the records show to be wrong; the metrics show the newest counts.

        Safe to run twice: a finding is open once, and what was counted is counted on from where it ended, in one transaction.

        Raises:
            ApplicationError: some organization could not be looked at; to be repeated.
        """
        async with heartbeating():
            return await in_each_organization(self.database, "records", self._compare)

    async def _compare(self, organization_id: UUID) -> Reconciled:
        missing = await self._missing_histories(organization_id)
        async with self.database.organization(organization_id) as session:
            check = await conservation.last_check(session)
            looked_for = {Kind.WAIT_WITHOUT_EVENT, Kind.GOING_ROUND, Kind.OCCURRENCE_MISSED}
            sightings = await self._stranded(session)
            sightings += [_round(one) for one in await round_trips.turned_back(session)]
            sightings += [_missed(one) for one in await occurrences.missed(session, utc_now())]
            if check is None or check.volumes_at is None or utc_now() - check.volumes_at >= VOLUMES_EVERY:
                looked_for.add(Kind.VOLUME_FELL)
                sightings += await _fallen(session)
                await conservation.note(session, "volumes")
            if conservation.is_due(check, utc_now()):
                looked_for.add(Kind.CONSERVATION)
                sightings += _unbalanced(session, await conservation.check_balance(session))
            await conservation.note(session, "records")
            recorded = await findings.record(session, [*sightings, *missing], looked_for)
        async with self.database.organization(organization_id) as session:
            await self._measure(session)
        return Reconciled(opened=recorded.opened, resolved=recorded.resolved)

    async def _stranded(self, session: OrganizationSession) -> list[Sighting]:
        endless = await stranded_waits.endless(session, self.patience.late)
        places = {(one.version_id, one.step_id) for one in endless}
        unheard = await stranded_waits.unheard(session, self.patience.late, SILENT)
        return [_endless(one) for one in endless] + [_unheard(one) for one in unheard if (one.version_id, one.step_id) not in places]

    # --- histories ---------------------------------------------------------------------------------------------------

    async def _missing_histories(self, organization_id: UUID) -> list[Sighting]:
        """What has ended some minutes ago and is not in the archive is fetched by its name; what is nowhere any more is a finding."""
        async with self.database.organization(organization_id) as session:
            check = await conservation.last_check(session)
            after = check.histories_to if check else 0
            end = await conservation.chain_before(session, after, first_id(utc_now() - self.patience.archiving))
            # What had ended before the first look may be forgotten rightly: the sweep takes what Temporal still has.
            first = check is None or check.records_at is None
            unarchived = [] if first else sorted(await carriers.unarchived(session, after, end), key=lambda one: one.sequence)
        if len(unarchived) > HISTORIES_AT_MOST:
            end, unarchived = unarchived[HISTORIES_AT_MOST].sequence - 1, unarchived[:HISTORIES_AT_MOST]
        observer, missing = Observer(self.temporal), []
        for one in unarchived:
            if (await observer.examine(one.workflow_id)).status in GOES_ON:
                continue  # it is archived when it closes
            if not await self.archive.fetch(organization_id, await observer.closed_of(one.workflow_id)):
                missing.append(
                    Sighting(Kind.HISTORY_MISSING, "workflow", one.workflow_id, {}, one.journey_id, one.runs, Severity.SUSPICION)
                )
        async with self.database.organization(organization_id) as session:
            await conservation.note_histories(session, end)
        return missing

    # --- metrics -----------------------------------------------------------------------------------------------------

    async def _measure(self, session: OrganizationSession) -> None:
        """Gauges at the worker's Prometheus address, with the organization's id as the label of each."""
        check = await conservation.last_check(session)
        if check is None or not check.balance:
            return
        meter = activity.metric_meter().with_additional_attributes({"organization_id": str(session.organization_id)})
        for name, value in _gauges(check, await findings.count_open(session)).items():
            meter.create_gauge(f"leadstats_{name}", GAUGES[name]).set(value)


GAUGES = {
    "runs_entered": "Runs that entered, by the record of entries",
    **{f"runs_{phase}": f"Runs that are {phase}, by the table of runs" for phase in Phase},
    "conservation_difference": "Runs that entered and are nowhere; anything but 0 is a finding",
    "deliveries_difference": "Deliveries accepted by the audit chain and not by the table; anything but 0 is a finding",
    "findings_open": "Findings that are open: problems",
    "suspicions_open": "Findings that are open: suspicions",
}


def _gauges(check: OrganizationCheck, open_findings: dict[str, int]) -> dict[str, int]:
    told = check.balance
    return {
        "runs_entered": told["entered"],
        **{f"runs_{phase}": told["runs"].get(phase, 0) for phase in Phase},
        "conservation_difference": told["difference"],
        "deliveries_difference": told["deliveries_difference"],
        "findings_open": open_findings.get(str(Severity.PROBLEM), 0),
        "suspicions_open": open_findings.get(str(Severity.SUSPICION), 0),
    }


def _endless(one: Stranded) -> Sighting:
    details = {"version_id": str(one.version_id), "step_id": one.step_id, "run_ids": one.some, **one.waits}
    return _at_step(one, details, Severity.PROBLEM)


def _unheard(one: Stranded) -> Sighting:
    details = {"version_id": str(one.version_id), "step_id": one.step_id, "never_received": one.names, "days": SILENT.days}
    return _at_step(one, details, Severity.SUSPICION)


def _at_step(one: Stranded, details: dict[str, Any], severity: Severity) -> Sighting:
    subject = f"{one.version_id}/{one.step_id}"
    return Sighting(Kind.WAIT_WITHOUT_EVENT, "step", subject, details, one.journey_id, one.runs, severity)


def _missed(one: Missed) -> Sighting:
    due = [each.astimezone(UTC).isoformat() for each in one.nominal_at[-TIMES_SHOWN:]]
    details = {"occurrences": len(one.nominal_at), "nominal_at": due}
    return Sighting(Kind.OCCURRENCE_MISSED, "campaign", str(one.campaign_id), details, one.journey_id)


def _round(one: RoundTrip) -> Sighting:
    """Alone, it may be that another system changes its contacts to and fro, as it is meant."""
    others = [str(each) for each in one.others]
    details = {"contacts": one.contacts, "since": one.since.isoformat(), "most": MAX_LED, "others": others}
    severity = Severity.PROBLEM if others else Severity.SUSPICION
    return Sighting(Kind.GOING_ROUND, "journey", str(one.journey_id), details, one.journey_id, 0, severity)


def _unbalanced(session: OrganizationSession, found: Balance) -> list[Sighting]:
    if found.holds:
        return []
    return [Sighting(Kind.CONSERVATION, "organization", str(session.organization_id), found.details(), None, abs(found.difference))]


async def _fallen(session: OrganizationSession) -> list[Sighting]:
    """Of a journey, the first span and measure in which nothing is left."""
    now, going = utc_now(), await volumes.going(session)
    found: dict[UUID, Sighting] = {}
    for measure in volumes.MEASURES:
        for span in SPANS:
            for volume in await volumes.volumes(session, measure, span, now):
                if volume.journey_id in going and fell_to_nothing(volume.now, volume.before):
                    found.setdefault(volume.journey_id, _fell(measure, span, volume))
    return list(found.values())


def _fell(measure: str, span: Span, volume: Volume) -> Sighting:
    details = {
        "measure": measure,
        "hours": span.hours,
        "periods": span.periods,
        "unit": span.unit,
        "least": min(volume.before),
        "usual": round(sum(volume.before) / len(volume.before)),
    }
    return Sighting(Kind.VOLUME_FELL, "journey", str(volume.journey_id), details, volume.journey_id, 0, Severity.SUSPICION)
