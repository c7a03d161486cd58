"""Runs benchmarks: tables as they come, and all in one file."""

import itertools
import json
import os
import shlex
import sys
import traceback
from argparse import Namespace
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from jaxmoe.benchmarks import hardware
from jaxmoe.benchmarks.peers import PEERS
from jaxmoe.benchmarks.report import Row, as_json, failed, line, plain, spreads, table
from jaxmoe.benchmarks.session import Session
from jaxmoe.cli.bench_measures import MEASURES
from jaxmoe.cli.bench_options import PEER
from jaxmoe.files import write_text


def run_all(benchmarks: Iterable[Namespace], args: Namespace, argv: list[str]) -> int:
    """Runs each; 1 if one failed, 0 else, targets met or missed.

    argv: of the whole command, for the record.
    """
    session = Session(args.preset, getattr(args, "peer", None) or ())
    rows: list[Row] = []
    for options in benchmarks:
        if options.benchmark not in PEER:
            session.drop_peers()
        found = _rows_of(session, options)
        print(f"\n{table(found)}\n", flush=True)
        rows += found
        if args.out is not None:  # after each, so that none is lost with the next
            write_text(
                args.out, json.dumps(_record(session, args, argv, rows), indent=2)
            )
    if args.benchmark == "all":
        print(f"All rows:\n\n{table(rows)}")
    print(spreads(rows))
    return int(any(row.value is None for row in rows))


def _rows_of(session: Session, options: Namespace) -> list[Row]:
    """The rows of one benchmark; the last says so if it failed."""
    rows: list[Row] = []
    try:
        for row in MEASURES[options.benchmark](session, options):
            rows.append(row)
            print(line(row), file=sys.stderr, flush=True)
    except Exception as error:
        traceback.print_exc()
        rows.append(failed(options.benchmark, error))
    return rows


def _record(
    session: Session, args: Namespace, argv: list[str], rows: list[Row]
) -> dict[str, Any]:
    libraries = [PEERS[name].libraries for name in session.peer_names]
    measured = {}
    if session.made is not None:
        speeds = session.made.machine
        measured["bandwidth, bytes/s"] = plain(speeds.bandwidth)
        measured["matmul, operations/s"] = plain(speeds.matmul)
    return {
        "command": shlex.join(["jaxmoe", "bench", *argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "preset": session.place.preset,
        "backend": session.place.backend,
        "hardware": hardware.hardware(),
        "load average": os.getloadavg(),
        "measured": measured,
        "versions": hardware.versions(tuple(itertools.chain(*libraries))),
        "rows": [as_json(row) for row in rows],
    }
