"""The command line: `python leadstats.py COMMAND`, or `.venv/bin/leadstats COMMAND`.

A command's module is imported when it is called, and gives `add_arguments(parser)` and `run(arguments) -> exit code`.
"""

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Command(NamedTuple):
    module: str
    summary: str


COMMANDS: Mapping[str, Command | Mapping[str, Command]] = {
    "up": Command("deploy.up", "everything: PostgreSQL, Temporal, worker, API and sandbox, until Ctrl-C"),
    "api": Command("deploy.api_command", "the API alone"),
    "worker": Command("deploy.worker_command", "a worker alone; start as many as needed"),
    "sandbox": Command("deploy.sandbox_command", "the sandbox's mail server alone"),
    "migrate": Command("deploy.migrate_command", "brings the database to the newest schema"),
    "doctor": Command("deploy.doctor", "says what is wrong with an installation and what to do"),
    "demo": Command("deploy.demo.command", "a demo organization on a running installation"),
    "simulate": Command("deploy.simulate_command", "what a journey would do, under a virtual clock; and its cases, for CI"),
    "audit": Command("deploy.audit_command", "exports and verifies the audit record"),
    "bench": {
        "throughput": Command("tests.benches.throughput", "messages per second, batched against one workflow per contact"),
        "api": Command("tests.benches.api", "latency of the API"),
        "simulation": Command("tests.benches.simulation", "how fast a journey is simulated for a thousand contacts"),
        "events": Command("tests.benches.events", "how soon a run goes on after its event, with many waiting"),
        "moves": Command("tests.benches.moves", "runs per second that a publish plan moves"),
    },
    "chaos": Command("deploy.chaos.command", "kills parts at random moments and counts what was lost or doubled"),
}


class _LazyParser(argparse.ArgumentParser):
    """A subcommand's parser that imports the subcommand when it is asked to parse."""

    command: Command | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.command is not None:
            module = _load(self.command.module, self)
            module.add_arguments(self)
            self.set_defaults(run=module.run)
            self.command = None
        return super().parse_known_args(args, namespace)


if sys.version_info < (3, 11):  # noqa: UP036  (the message is for those who run an older one)
    sys.exit("leadstats needs Python 3.11 or newer. Use .venv/bin/leadstats, which `make up` makes.")


def main(arguments: Sequence[str]) -> int:
    parser = _LazyParser(prog="leadstats", description="Customer communication that runs on your own machines.")
    _register(parser, COMMANDS)
    parsed = parser.parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except KeyboardInterrupt:
        code = 130
    return code


def _register(parser: argparse.ArgumentParser, commands: Mapping[str, Command | Mapping[str, Command]]) -> None:
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_LazyParser)
    for name, command in commands.items():
        summary = command.summary if isinstance(command, Command) else f"one of {', '.join(command)}"
        child = subparsers.add_parser(name, help=summary, description=summary)
        if isinstance(command, Command):
            child.command = command
        else:
            _register(child, command)


def _load(name: str, parser: argparse.ArgumentParser) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # something that the command needs is missing, not the command
        parser.error(f"this installation does not bring the command ({name} is missing)")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
