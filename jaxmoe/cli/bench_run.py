"""Runs benchmarks: tables as they come, and all in one file."""

import itertools
import json
import os
import shlex
import sys
import traceback
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
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
    run = Run(Session(args.preset, getattr(args, "peer", None) or ()), args.out, argv)
    for options in benchmarks:
        run.measure(options)
    if args.benchmark == "all":
        run.print_all()
    print(spreads(run.rows))
    return run.status


@dataclass
class Run:
    """Benchmarks one after the other.

    out: a file that has all rows from the first on, or None. argv: of the whole
    command, for the record. rows: of all benchmarks so far.
    """

    session: Session
    out: Path | None
    argv: list[str]
    rows: list[Row] = field(default_factory=list)

    def measure(self, options: Namespace) -> None:
        """Runs one, and prints its table; its last row says so if it failed."""
        if options.benchmark not in PEER:
            self.session.drop_peers()
        first = len(self.rows)
        try:
            for row in MEASURES[options.benchmark](self.session, options):
                self._add(row)
                print(line(row), file=sys.stderr, flush=True)
        except Exception as error:
            traceback.print_exc()
            self._add(failed(options.benchmark, error))
        print(f"\n{table(self.rows[first:])}\n", flush=True)

    def print_all(self) -> None:
        """One table of all rows."""
        print(f"All rows:\n\n{table(self.rows)}", flush=True)

    @property
    def status(self) -> int:
        """The command's exit code."""
        return int(any(row.value is None for row in self.rows))

    def _add(self, row: Row) -> None:
        """Written at once, so that none is lost with the next."""
        self.rows.append(row)
        if self.out is not None:
            record = _record(self.session, self.argv, self.rows)
            write_text(self.out, json.dumps(record, indent=2))


def _record(session: Session, argv: list[str], rows: list[Row]) -> dict[str, Any]:
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
