"""`jaxmoe bench device`: what a first run on a GPU or TPU should tell, in minutes."""

import os
import sys
import threading
import time
from argparse import Namespace

from jaxmoe.benchmarks import hardware
from jaxmoe.benchmarks.peers import PEERS
from jaxmoe.benchmarks.presets import largest_for
from jaxmoe.benchmarks.report import spreads
from jaxmoe.benchmarks.session import Session
from jaxmoe.cli.bench_options import device_parts, make_parser
from jaxmoe.cli.bench_run import Run
from jaxmoe.execution import default_platform


def run_device(args: Namespace, argv: list[str]) -> int:
    """Runs all parts by worth until they are done or time is up.

    A program that is being compiled cannot be interrupted: when time is up the process
    ends, with the rows that it has written.
    """
    begin = time.monotonic()
    backend = default_platform()
    preset = args.preset or largest_for(backend, hardware.device_memory())
    peers = tuple(name for name in ("transformers",) if _is_here(name, backend))
    run = Run(Session(preset, peers), args.out, argv)
    print(f"preset {preset}, {hardware.hardware()}, at most {args.minutes:g} minutes")
    timer = threading.Timer(args.minutes * 60, _cut, [run])
    timer.daemon = True
    timer.start()
    whole = make_parser(None)
    for part in device_parts():
        options = whole.parse_args(part)
        wanted = getattr(options, "peer", None) or ()
        if wanted and not peers:
            continue
        run.session.peer_names = tuple(wanted)
        run.session.drop_peers()
        run.measure(options)
        print(f"{time.monotonic() - begin:.0f} s\n", flush=True)
    timer.cancel()
    _end(run)
    return run.status


def _is_here(name: str, backend: str) -> bool:
    try:
        PEERS[name].require(backend)
    except ImportError as error:
        print(f"Left out: {error}", file=sys.stderr)
        return False
    return True


def _end(run: Run) -> None:
    run.print_all()
    print(spreads(run.rows), flush=True)


def _cut(run: Run) -> None:
    """Ends the process in the midst of a part; files are replaced whole, or not."""
    _end(run)
    print("Time is up: the rest was left out.", flush=True)
    os._exit(run.status)
