"""The demo's last words: what happened, whether it is right, and where to look at it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.demo.founding import Founded
from deploy.demo.journey import MAILS
from deploy.demo.outcome import Outcome
from deploy.demo.scene import Scene


def document(outcome: Outcome, founded: Founded, scene: Scene, installation: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The line of `--json`. Without personal data, but with the login of the demo's own organization."""
    compared = outcome.comparison
    return {
        "ok": outcome.holds,
        "contacts": outcome.contacts,
        "messages": compared.messages,
        "expected": compared.expected,
        "missing": compared.missing,
        "duplicates": compared.duplicates,
        "unexpected": compared.unexpected,
        "messages_by_step": dict(compared.by_step),
        "refused": dict(outcome.refused),
        "refusals_missing": compared.refusals_missing,
        "refusals_unexpected": compared.refusals_unexpected,
        "runs": dict(outcome.runs),
        "conserved": outcome.conserved,
        "audit_ok": outcome.audit.ok,
        "audit_entries": outcome.audit.entries,
        "seconds": round(seconds, 1),
        "organization_id": str(founded.organization_id),
        "organization": founded.slug,
        "login": {"email": founded.email, "password": founded.password},
        "api_key": founded.api_key,
        "journey_id": scene.journey_id,
        "campaign_id": scene.campaign_id,
        "console": installation["console"],
    }


def show(console: Console, outcome: Outcome, founded: Founded, scene: Scene, installation: Mapping[str, Any], seconds: float) -> None:
    """Two tables, the verdict and the addresses."""
    console.print()
    console.print(_counts("In the sandbox's inbox", {MAILS[step].name: outcome.comparison.by_step.get(step, 0) for step in MAILS}))
    console.print(_counts("Not sent, by reason", {reason.replace("_", " "): count for reason, count in sorted(outcome.refused.items())}))
    for good, line in _verdict(outcome):
        console.print(f"[green]✓[/] {escape(line)}" if good else f"[bold red]✗[/] {escape(line)}", highlight=False, soft_wrap=True)
    _print_all(console, ["", "One run, as its timeline tells it:", *(f"  {sentence}" for sentence in outcome.example)])
    console.print(f"\n{'Everything holds' if outcome.holds else 'This does NOT hold'} ({seconds:.1f} s). Look around:\n", highlight=False)
    _print_all(console, [f"  {name:<18}{value}" for name, value in places(founded, scene, installation)])


def _print_all(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, show_footer=True)
    table.add_column(min_width=28, footer="together")
    table.add_column(justify="right", footer=f"{sum(counts.values()):,}")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    return table


def _verdict(outcome: Outcome) -> Iterator[tuple[bool, str]]:
    compared, runs = outcome.comparison, outcome.runs
    exact = not (compared.missing or compared.duplicates or compared.unexpected)
    yield (
        exact,
        f"{compared.messages:,} messages arrived; by the file it had to be {compared.expected:,}: "
        f"{compared.missing} missing, {compared.duplicates} twice, {compared.unexpected} to somebody who must not get it",
    )
    yield (
        not (compared.refusals_missing or compared.refusals_unexpected),
        f"every other message was refused for the reason that the file gives: {sum(outcome.refused_by_timeline.values()):,} refusals, "
        f"{compared.refusals_missing} missing, {compared.refusals_unexpected} wrong",
    )
    phases = " + ".join(f"{count:,} {phase}" for phase, count in runs.items()) or "none"
    yield outcome.conserved and outcome.all_completed, f"nobody is lost: {outcome.audience or 0:,} entered = {phases}"
    findings = "; ".join(finding.message for finding in outcome.audit.findings[:3])
    yield outcome.audit.ok, f"the audit record verifies: {outcome.audit.entries:,} entries{', but ' + findings if findings else ''}"


def places(founded: Founded, scene: Scene, installation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Where to look around: what is there, and its address or the command that asks for it."""
    yield "API", f"{installation['api']}/v1   (described at {installation['api']}/v1/openapi.json and in docs/api.md)"
    yield "Log in", f"{founded.email}   {founded.password}   (organization {founded.slug})"
    ask = f"curl -s -H 'Authorization: Bearer {founded.api_key}' {installation['api']}/v1"
    yield "The campaign", f"{ask}/campaigns/{scene.campaign_id}"
    yield "The inbox", f"{ask}/sandbox/messages"
    if installation["temporal_ui"]:
        query = f"CampaignId%3D%22{scene.campaign_id}%22"
        yield "Temporal", f"{installation['temporal_ui']}/namespaces/{installation['temporal_namespace']}/workflows?query={query}"
