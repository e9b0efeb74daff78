"""Recording decisions: one row per question asked, never changed, and the first answer stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from models.domain.audit import NewEntry
from models.domain.decision import RULE_VERSION, Decision, Outcome
from models.store import audit
from models.store.rowset import rowset
from models.store.session import OrganizationSession
from models.tables.base import new_id


@dataclass(frozen=True)
class Question:
    """Asked of one run at one step: (run, step, visit, check, round) identifies it. `check` is consent or quiet_hours."""

    run_id: UUID
    contact_id: UUID
    step_id: str
    visit: int
    check: str
    round: int


@dataclass(frozen=True)
class StoredDecision:
    run_id: UUID
    outcome: Outcome
    reason: str | None
    hold_until: datetime | None
    allowed_until: datetime | None


_RECORDSET = """jsonb_to_recordset(CAST(:rows AS jsonb)) AS a(id uuid, run_id uuid, contact_id uuid, step_id text, visit int,
      "check" text, round int, outcome text, reason text, hold_until timestamptz, inputs jsonb)"""
_INSERT = text(
    f"""
    INSERT INTO decisions AS d (id, organization_id, run_id, contact_id, step_id, visit, "check", round, outcome, reason, hold_until,
                           inputs, rule_version, decided_at)
    SELECT a.id, :o, a.run_id, a.contact_id, a.step_id, a.visit, a."check", a.round, a.outcome, a.reason, a.hold_until,
           a.inputs, :rule_version, :now
    FROM {_RECORDSET} ORDER BY a.run_id
    ON CONFLICT (run_id, step_id, visit, "check", round) DO NOTHING
    RETURNING d.id, d.outcome = 'hold' AND coalesce((
      SELECT b.outcome = 'hold' AND b.reason = d.reason FROM decisions b
      WHERE b.organization_id = d.organization_id AND b.run_id = d.run_id AND b.step_id = d.step_id AND b.visit = d.visit
        AND b."check" = d."check" AND b.round = d.round - 1), FALSE) AS held_already
    """
)
_STORED = text(
    f"""
    SELECT d.run_id, d.outcome, d.reason, d.hold_until, CAST(d.inputs ->> 'allowed_until' AS timestamptz) AS allowed_until FROM {_RECORDSET}
    CROSS JOIN LATERAL (
      SELECT * FROM decisions d WHERE d.organization_id = :o AND d.run_id = a.run_id AND d.step_id = a.step_id AND d.visit = a.visit
        AND d."check" = a."check" AND d.round = a.round LIMIT 1) d
    """
)


async def record(session: OrganizationSession, decided: Sequence[tuple[Question, Decision]], now: datetime) -> dict[UUID, StoredDecision]:
    """By run, the decision in force: this one, or the one recorded when the same question was asked before.

    Holds and refusals enter the audit chain with the row that holds their inputs; so append nothing before this in a
    transaction. A hold for what held the round before enters it no more: only its row is kept. `now` is aware
    UTC, the clock the decisions were judged by.
    """
    rows = [_row(question, decision) for question, decision in decided]
    parameters: dict[str, Any] = {"o": session.organization_id, "rows": rowset(rows), "rule_version": RULE_VERSION, "now": now}
    inserted = {row.id: row.held_already for row in await session.execute(_INSERT, parameters)}
    answers = {
        question.run_id: StoredDecision(question.run_id, decision.outcome, decision.reason, decision.hold_until, decision.allowed_until)
        for (question, decision), row in zip(decided, rows, strict=True)
        if row["id"] in inserted
    }
    if len(inserted) < len(rows):
        stored = await session.execute(_STORED, {"o": session.organization_id, "rows": parameters["rows"]})
        answers |= {row["run_id"]: StoredDecision(**{**row, "outcome": Outcome(row["outcome"])}) for row in stored.mappings()}
    new = [row for row in rows if row["id"] in inserted and not inserted[row["id"]]]
    await audit.append(session, [_entry(row) for row in new if row["outcome"] is not Outcome.SEND])
    return answers


def _row(question: Question, decision: Decision) -> dict[str, Any]:
    until = {} if decision.allowed_until is None else {"allowed_until": decision.allowed_until.isoformat()}
    return {
        **vars(question),
        "id": new_id(),
        "outcome": decision.outcome,
        "reason": decision.reason,
        "hold_until": decision.hold_until,
        "inputs": {**decision.inputs, **until},
    }


def _entry(row: dict[str, Any]) -> NewEntry:
    held = row["outcome"] is Outcome.HOLD
    details = {
        "decision_id": str(row["id"]),
        "contact_id": str(row["contact_id"]),
        "step_id": row["step_id"],
        "visit": row["visit"],
        "round": row["round"],
        "check": row["check"],
        "reason": row["reason"],
        "rule_version": RULE_VERSION,
    }
    if held:
        details["hold_until"] = row["hold_until"].isoformat()
    return NewEntry("message.held" if held else "message.refused", "run", str(row["run_id"]), details=details)
