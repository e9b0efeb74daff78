"""`leadstats doctor`: says what is wrong with an installation, and what to do."""

import argparse
import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from deploy.doctor_checks import CHECKS, Check
from deploy.doctor_target import Target, locate
from deploy.probes import Unhealthy
from deploy.state import StateDirectory, add_state_argument

PATIENCE = 5  # seconds that a check may take


@dataclass(frozen=True)
class Finding:
    check: str
    ok: bool
    detail: str
    remedy: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_state_argument(parser)
    parser.add_argument("--json", action="store_true", help="findings as one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """0 when everything is well, 1 when something is wrong."""
    findings = asyncio.run(examine(StateDirectory(arguments.state), os.environ))
    well = all(finding.ok for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": well, "findings": [asdict(finding) for finding in findings]}))
    else:
        print(_report(findings))
    return 0 if well else 1


async def examine(state: StateDirectory, environment: Mapping[str, str]) -> list[Finding]:
    """One finding for each check, in the order of CHECKS, after about PATIENCE seconds at the latest. Changes nothing."""
    target = locate(state, environment)
    findings = await asyncio.gather(*(_finding(check, target) for check in CHECKS))
    await asyncio.sleep(0.05)  # Temporal's client must not hold the interpreter while it ends: temporal.md section 14
    return findings


async def _finding(check: Check, target: Target) -> Finding:
    name = check.__name__.replace("_", " ")
    try:
        async with asyncio.timeout(PATIENCE) as limit:
            return Finding(name, True, await check(target))
    except Unhealthy as finding:
        return Finding(name, False, finding.problem, finding.remedy)
    except Exception as error:  # a check that fails itself is a finding, not the end of the others
        if limit.expired():
            advice = target.remedy(
                f"It is overloaded, stopped or out of reach. Look at its log in {target.state / 'logs'}, or restart leadstats up."
            )
            return Finding(name, False, f"It did not answer within {PATIENCE} s.", advice)
        return Finding(name, False, f"{type(error).__name__}: {error}", "Look at the part's log in the state directory.")


def _report(findings: list[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.check:<18} {finding.detail}")
        if finding.remedy:
            lines.append(f"       {'':<18} -> {finding.remedy}")
    wrong = sum(not finding.ok for finding in findings)
    lines.append("\nEverything is well." if wrong == 0 else f"\n{wrong} of {len(findings)} checks found something wrong.")
    return "\n".join(lines)
