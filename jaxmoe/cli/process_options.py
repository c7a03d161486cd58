"""Options: with which other processes they compute together."""

import argparse
import os
import sys

from jaxmoe.sharding import processes


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """Adds how processes find each other."""
    group = parser.add_argument_group(
        "processes", "Several of them (processes): start the same command in each."
    )
    add = group.add_argument
    distributed = "join the processes of a TPU pod, Slurm or Open MPI, found out"
    add("--distributed", action="store_true", help=distributed)
    add("--coordinator", metavar="HOST:PORT", help="of process 0, to join by hand")
    add("--processes", type=int, metavar="N", help="how many processes there are")
    add("--process", type=int, metavar="I", help="which one this is, from 0")


def join_processes(args: argparse.Namespace) -> None:
    """Joins the other processes, if any are asked for; before JAX is used."""
    by_hand = (args.coordinator, args.processes, args.process)
    if not args.distributed and by_hand == (None, None, None):
        return
    if args.mesh is None:
        raise ValueError("several processes need --mesh, over the devices of all")
    _keep_output_clean()
    processes.initialize(
        args.coordinator, processes=args.processes, process=args.process
    )


def _keep_output_clean() -> None:
    """What this command prints stays alone on standard output.

    The library that connects CPU devices (Gloo) speaks there too; it gets standard
    error instead.
    """
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(own, "w", buffering=1, encoding="utf-8")
