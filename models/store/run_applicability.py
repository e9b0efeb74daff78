"""Why a command makes no sense for a run, and whom a pause keeps from going on, as SQL.

About `r`, a row of runs, `journey` and `campaign` (all NULL for a run of none), and `:o`, the organization.
"""

from collections.abc import Mapping
from typing import Any

from models.domain.findings import LOST
from models.domain.journey.operations import OPERATIONS, UNKNOWN_RESEND, UNKNOWN_STEP, WRONG_PHASE
from models.store.journeys import cancelled_with

Case = tuple[str, str]  # a code, and when it applies

# The pause that was said first is the one that the run's workflow names.
_PAUSED_WITH = """CASE WHEN campaign.paused_at <= coalesce(journey.paused_at, campaign.paused_at) THEN 'campaign'
                       WHEN journey.paused_at IS NOT NULL THEN 'journey' END"""
# The last word about it that was no word about all. Those that an older release recorded do not say so, and count as the run's own.
PAUSED_ITSELF = """coalesce((SELECT e.kind = 'paused' FROM run_events e WHERE e.organization_id = :o AND e.run_id = r.id
                                AND e.kind IN ('paused', 'resumed') AND NOT jsonb_exists(e.details, 'with')
                              ORDER BY e.sequence DESC LIMIT 1), FALSE)"""
_ONLY_WITH_ALL: tuple[Case, ...] = tuple(
    (f"paused_with_{kind}", f"r.status = 'paused' AND {_PAUSED_WITH} = '{kind}' AND NOT {PAUSED_ITSELF}")
    for kind in ("campaign", "journey")
)
_NEWEST = """coalesce((SELECT n.id FROM journey_versions n WHERE n.organization_id = :o AND n.journey_id = r.journey_id
                       ORDER BY n.number DESC LIMIT 1), r.version_id)"""
# Its workflow is gone for good: nothing can be said to it, but it can be cancelled, by the record alone, and replayed.
_IS_LOST: Case = (LOST, f"r.reason = '{LOST}'")
_COMMANDS: Mapping[str, tuple[Case, ...]] = {
    **dict.fromkeys(("retry", "skip", "jump"), (_IS_LOST,)),
    "pause": (_IS_LOST, ("already", f"r.status = 'paused' AND {PAUSED_ITSELF}")),  # what is paused with all may be paused by itself, too
    "resume": _ONLY_WITH_ALL,
    "replay": (
        ("replayed_already", "r.replayed_by IS NOT NULL"),
        *_ONLY_WITH_ALL,
        ("run_paused", "r.status = 'paused'"),
        ("run_left", "r.finished_at IS NULL AND r.exit_requested_at IS NOT NULL"),
        ("run_cancelled", f"r.finished_at IS NULL AND (r.cancel_requested_at IS NOT NULL OR coalesce({cancelled_with('journey')}, FALSE))"),
        ("journey_archived", "journey.archived_at IS NOT NULL"),
        ("campaign_cancelled", "campaign.cancelled_at IS NOT NULL"),
    ),
}
LOST_PAUSED = f"(r.reason = '{LOST}' AND {PAUSED_ITSELF})"  # its replay is paused, too
_ALL_PAUSED = "(campaign.paused_at IS NOT NULL OR journey.paused_at IS NOT NULL)"
_STAYS_PAUSED: Mapping[str, str] = {
    "resume": _ALL_PAUSED,
    "replay": f"({_ALL_PAUSED} OR {LOST_PAUSED})",
    **dict.fromkeys(("retry", "skip", "jump"), f"(r.status = 'paused' OR {_ALL_PAUSED})"),
}


def why_not(command: str, arguments: Mapping[str, Any]) -> str:
    """The code of the first thing that stands in the way; NULL: nothing, as far as is on record."""
    phase = "coalesce(r.beneath, r.status)" if OPERATIONS[command].beneath_pause else "r.status"
    cases = [(WRONG_PHASE, f"{phase} <> ALL(CAST(:phases AS text[]))"), *_COMMANDS.get(command, ()), *_of_steps(command, arguments)]
    whens = " ".join(f"WHEN {condition} THEN '{code}'" for code, condition in cases)
    return f"CASE {whens} END"


def _of_steps(command: str, arguments: Mapping[str, Any]) -> list[Case]:
    """Steps that are named, or meant, must be there."""
    cases = []
    if "to_step" in arguments:
        cases.append((UNKNOWN_STEP, _lacks(arguments, "jsonb_exists(v.definition -> 'steps', :to_step)")))
    if command == "replay":
        named = arguments.get("from_step") is not None
        cases.append((UNKNOWN_STEP, _lacks(arguments, "jsonb_exists(v.definition -> 'steps', :from_step)") if named else _lost(arguments)))
    if arguments.get("resend"):
        cases.append((UNKNOWN_RESEND, _lacks(arguments, "jsonb_exists_all(v.definition -> 'steps', CAST(:resend AS text[]))")))
    return cases


# Each asks the versions once, not once for each run: their definitions are large, and the runs may be a million.
def _lacks(arguments: Mapping[str, Any], condition: str) -> str:
    versions = f"SELECT v.id FROM journey_versions v WHERE v.organization_id = :o AND {condition}"
    return f"{goes_on_with(arguments)} NOT IN ({versions})"


def _lost(arguments: Mapping[str, Any]) -> str:
    """The step at which the run stands is not in the version; of one that stands nowhere, the first is meant, and always there."""
    steps = """(SELECT jsonb_object_agg(v.id, (SELECT jsonb_agg(s) FROM jsonb_object_keys(v.definition -> 'steps') AS s))
                FROM journey_versions v WHERE v.organization_id = :o)"""
    return f"r.step_id IS NOT NULL AND NOT jsonb_exists({steps} -> CAST({goes_on_with(arguments)} AS text), r.step_id)"


def goes_on_with(arguments: Mapping[str, Any]) -> str:
    """The id of the version that the command is about."""
    return _NEWEST if arguments.get("version") == "current" else "r.version_id"


def stays_paused(command: str) -> str:
    """Whether a run that obeys goes on only when a pause is lifted. FALSE also for commands after which nothing is to go on."""
    return _STAYS_PAUSED.get(command, "FALSE")


def parameters(command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What `why_not` needs, but for the organization."""
    named = {name: arguments[name] for name in ("to_step", "from_step", "resend") if arguments.get(name)}
    return {"phases": sorted(OPERATIONS[command].phases), **named}
