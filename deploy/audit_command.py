"""`leadstats audit export` and `leadstats audit verify`. Verifying opens a file and nothing else: no database, no network."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from deploy.state import StateDirectory, add_state_argument
from models.checkpoints import is_signed
from models.domain.audit_verification import Verification, verify, vouched_hashes

FINE, WRONG, UNREADABLE = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(dest="audit_command", metavar="COMMAND", required=True, parser_class=argparse.ArgumentParser)
    export = subparsers.add_parser("export", help="writes an organization's audit record to a file")
    export.add_argument("--organization", required=True, metavar="SLUG")
    export.add_argument("--output", required=True, metavar="FILE", help="- for standard output")
    export.add_argument("--json", action="store_true", help="says what was written as one JSON object on standard output")
    add_state_argument(export)
    check = subparsers.add_parser("verify", help="checks an exported record, offline")
    check.add_argument("file", metavar="FILE")
    check.add_argument("--public-key", metavar="HEX", help="the key that must have signed; from GET /v1/audit-entries/checkpoint")
    check.add_argument("--earlier", metavar="FILE", help="an earlier export or checkpoint, which the chain must still go through")
    check.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """0: as it should be. 1: the record was changed, or cannot be exported. 2: what is to be verified cannot be read."""
    return _export(arguments) if arguments.audit_command == "export" else _verify(arguments)


def _verify(arguments: argparse.Namespace) -> int:
    try:
        key = None if arguments.public_key is None else bytes.fromhex(arguments.public_key)
        earlier = {} if arguments.earlier is None else _earlier(Path(arguments.earlier), key)
        with Path(arguments.file).open(encoding="utf-8") as file:
            found = verify(file, is_signed, key, earlier)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        print(f"leadstats audit verify: {_reason(error)}", file=sys.stderr)
        return UNREADABLE
    print(json.dumps(asdict(found)) if arguments.json else _report(found))
    return FINE if found.ok else WRONG


def _earlier(path: Path, key: bytes | None) -> dict[int, str]:
    with path.open(encoding="utf-8") as file:
        found = vouched_hashes((line for line in file if line.strip()), is_signed, key)
    if not found:
        raise ValueError(f"{path} holds no checkpoint that the key has signed")
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return str(error) if type(error) is ValueError else "the file or the key is not in the form expected"


def _report(found: Verification) -> str:
    whose = f"organization {found.organization_id}, signed with {found.public_key}"
    if not found.ok:
        lines = [f"NOT the signed record ({found.entries} entries; {whose}):"]
        return "\n".join(lines + [f"  {finding.kind}: {finding.message}" for finding in found.findings])
    text = f"OK: {found.entries} entries, ending in {found.head_hash} ({whose})"
    return text if found.pinned else text + "\nThe key was taken from the file itself: give --public-key to be sure who signed."


def _export(arguments: argparse.Namespace) -> int:
    from deploy.audit_export import Unusable, export_to

    if arguments.json and arguments.output == "-":
        return _refuse("--json needs a file as --output, since both would go to standard output")
    try:
        made = export_to(arguments.organization, arguments.output, StateDirectory(arguments.state), os.environ)
    except Unusable as error:
        return _refuse(str(error))
    if arguments.json:
        print(json.dumps(asdict(made)))
    else:
        print(f"{made.lines} lines written to {made.output}.", file=sys.stderr)
    return FINE


def _refuse(message: str) -> int:
    print(f"leadstats audit export: {message}", file=sys.stderr)
    return WRONG
