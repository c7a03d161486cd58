"""Measures jaxmoe on this machine, each number beside its target where it has one.

`python scripts/bench.py all --peer transformers` measures everything.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator

from _bench_options import HELP, parser

from jaxmoe.cli.endings import ends_quietly, input_errors

SHARED = ("preset", "peer", "gb", "jobs", "dir", "rounds")
"""Options of `all` that its benchmarks take over."""


def _every_benchmark(args: Namespace) -> Iterator[Namespace]:
    """The options of each benchmark that `all` stands for."""
    for name in HELP:
        options = parser(__doc__).parse_args([name])
        for shared in SHARED:
            if hasattr(options, shared) and getattr(args, shared) is not None:
                setattr(options, shared, getattr(args, shared))
        yield options


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if measured, 1 if a benchmark failed, 2 on wrong input."""
    args = parser(__doc__).parse_args(argv)
    # A peer, and the processes of `compile`, need room on the device too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with ends_quietly(), input_errors():
        from _bench_run import run_all

        import jaxmoe

        jaxmoe.enable_compilation_cache()
        every = args.benchmark == "all"
        return run_all(list(_every_benchmark(args)) if every else [args], args)


if __name__ == "__main__":
    sys.exit(main())
