"""Whom a campaign would take, and why not the others: the same SQL for its snapshot and its preview."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from models.domain.journey.definition import Definition
from models.domain.journey.entry import EntryRules
from models.domain.journey.run import FINISHED
from models.store.segment_sql import CompiledRule, compile_rule

EXCLUDED = "excluded"
ENDED = "journey_ended"
PASSED = "local_time_passed"


@dataclass(frozen=True)
class AudienceQuery:
    """A campaign's audience as asked for. Rules None: everybody, nobody. `now` is what the rules and the journey go by."""

    journey_id: UUID
    definition: Definition
    rule: Mapping[str, Any] | None
    exclusion: Mapping[str, Any] | None
    now: datetime


@dataclass(frozen=True)
class Selection:
    """Two expressions about `c`, a row of contacts. `fitting`: the rule selects it. `why_not`: the code of why it is left out all the
    same, NULL where it is taken; the first reason in the order of `models.domain.journey.entry.refusal`. `parameters`: of both,
    beside `:o`, the organization."""

    fitting: CompiledRule
    why_not: str
    parameters: dict[str, Any]


def select(wanted: AudienceQuery) -> Selection:
    """The audience as SQL.

    Raises:
        Invalid: a rule is malformed.
    """
    rule = _compiled(wanted.rule, "TRUE", wanted.now)
    exclusion = _compiled(wanted.exclusion, "FALSE", wanted.now)
    rules = wanted.definition.entry
    entry = _entry(rules)
    cases = [(exclusion.sql, EXCLUDED), ("TRUE" if wanted.definition.has_ended(wanted.now) else "FALSE", ENDED), *entry]
    why_not = " ".join(f"WHEN {condition} THEN '{code}'" for condition, code in cases if condition != "FALSE")
    sql = f"CASE {why_not} END" if why_not else "CAST(NULL AS text)"
    about_entries = {
        "entered_journey": wanted.journey_id,
        "finished": [str(phase) for phase in FINISHED],
        "cool_since": None if rules.cool_down is None else wanted.now - rules.cool_down,
        "maximum": rules.maximum,
    }
    used = {name: value for name, value in about_entries.items() if f":{name}" in sql}
    return Selection(rule, sql, {**rule.parameters, **exclusion.parameters, **used})


def fitting(rule: Mapping[str, Any] | None, exclusion: Mapping[str, Any] | None, now: datetime) -> CompiledRule:
    """Whom the rule selects and the exclusion does not, whatever the journey says."""
    fits, not_these = _compiled(rule, "TRUE", now), _compiled(exclusion, "FALSE", now)
    return CompiledRule(f"({fits.sql}) AND NOT ({not_these.sql})", {**fits.parameters, **not_these.parameters})


def _compiled(rule: Mapping[str, Any] | None, otherwise: str, now: datetime) -> CompiledRule:
    return CompiledRule(otherwise, {}) if rule is None else compile_rule(rule, now)


# Entries of a campaign have no key, and are judged by entries without one. Kept in step with `entry.refusal` by tests. A replay is no
# entry, but may be under way.
_ENTRIES = """SELECT 1 FROM runs p WHERE p.organization_id = :o AND p.journey_id = :entered_journey AND p.contact_id = c.id"""
_SAME_KEY = f"{_ENTRIES} AND p.entry_key IS NULL"
_FIRST = "p.replay_of IS NULL"


def _entry(rules: EntryRules) -> Sequence[tuple[str, str]]:
    found = []
    if rules.again == "once":
        found.append((f"EXISTS ({_SAME_KEY})", "entered_before"))
    if rules.again == "after_exit":
        under_way = f"{_SAME_KEY} AND p.status <> ALL(CAST(:finished AS text[])) AND p.exit_requested_at IS NULL"  # as in `entries`
        found.append((f"EXISTS ({under_way})", "under_way"))
    if rules.cool_down is not None:
        found.append((f"EXISTS ({_SAME_KEY} AND {_FIRST} AND p.created_at > CAST(:cool_since AS timestamptz))", "cooling_down"))
    if rules.maximum is not None:
        found.append(
            (f"(SELECT count(*) FROM ({_ENTRIES} AND {_FIRST} LIMIT CAST(:maximum AS int)) entries) >= :maximum", "maximum_reached")
        )
    return found
