"""`leadstats sandbox`: the sandbox's servers, which speak the providers' protocols, in this process."""

import argparse

from api.sandbox.server import serve as serve_sandbox
from deploy.serving import serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Settings come from the environment: docs/operating.md."""


def run(arguments: argparse.Namespace) -> int:
    return serve(serve_sandbox)
