"""Measures jaxmoe on this machine, each number beside its target where it has one.

`jaxmoe bench all --peer transformers` measures everything.
"""

import argparse
import os
import sys
from collections.abc import Iterator

import jaxmoe
from jaxmoe.cli.bench_device import run_device
from jaxmoe.cli.bench_options import all_parts, make_parser
from jaxmoe.cli.bench_run import run_all
from jaxmoe.cli.endings import command
from jaxmoe.execution import default_platform

SHARED = ("preset", "peer", "gb", "jobs", "dir", "rounds", "baseline")
"""Options of `all` that its benchmarks take over."""


def parser() -> argparse.ArgumentParser:
    """A subcommand for each benchmark, and `all`."""
    return make_parser(__doc__)


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if measured, 1 if a benchmark failed, 2 on wrong input."""
    given = sys.argv[1:] if argv is None else argv
    args = parser().parse_args(given)
    # A peer, and the processes of `compile`, need room on the device too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jaxmoe.enable_compilation_cache()
    if args.benchmark == "device":
        return run_device(args, given)
    every = args.benchmark == "all"
    return run_all([*_every_benchmark(args)] if every else [args], args, given)


def _every_benchmark(args: argparse.Namespace) -> Iterator[argparse.Namespace]:
    """The options of each benchmark that `all` stands for."""
    for part in all_parts(default_platform()):
        options = parser().parse_args(part)
        for shared in SHARED:
            if hasattr(options, shared) and getattr(args, shared) is not None:
                setattr(options, shared, getattr(args, shared))
        yield options
