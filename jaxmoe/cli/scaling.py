"""Scaling tables whose collectives and bytes held come from compiled programs.

For each number of chips the step of the mesh that `jaxmoe plan --scaling` chooses is
compiled for as many virtual devices, with one layer and with two, and carried on to all
layers. Takes minutes.
"""

import argparse
import json
from pathlib import Path

from jaxmoe.benchmarks.scaling_rows import Rows
from jaxmoe.benchmarks.scaling_table import as_text
from jaxmoe.cli.endings import command
from jaxmoe.cli.plan_options import add_load_options, chips_of, load_of, numbers
from jaxmoe.planning.models import config_of
from jaxmoe.planning.scaling import COUNTS


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe scaling", description=__doc__)
    add = made.add_argument
    add("models", nargs="+", help="30b, 235b, demo, or checkpoint directories")
    add_load_options(made, "v5e")
    counts = "numbers of chips (default: 1 to 256, doubling)"
    add("--counts", type=numbers, metavar="N,N", help=counts)
    most = "compile for up to so many chips; formulas alone beyond (default: 256)"
    add("--most", type=int, default=256, metavar="N", help=most)
    out = "write all rows as JSON, read again what is there, and go on"
    add("--out", type=Path, metavar="FILE", help=out)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    rows = Rows(args.out, args.most)
    for model in args.models:
        config = config_of(model)
        for chip in chips_of(args.chips):
            for kind in ("strong", "weak"):
                for count in args.counts or COUNTS:
                    n = args.n if kind == "strong" else args.per_chip * count
                    rows.add(
                        (model, chip.name, kind, count),
                        config,
                        chip,
                        load_of(args, n),
                        rules=args.rules,
                        latency=args.latency * 1e-6,
                    )
    print(json.dumps(rows.found, indent=2) if args.json else as_text(rows.found))
    return 0
