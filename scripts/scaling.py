"""Scaling tables whose collectives and bytes held come from compiled programs.

For each number of chips the step of the mesh that `plan.py --scaling` chooses is
compiled for as many virtual devices, with one layer and with two, and carried on to all
layers. Takes minutes.
"""

import argparse
import json
import sys
from pathlib import Path

from _plan_options import add_load_options, chips_of, config_of, load_of, numbers

from jaxmoe.cli.endings import ends_quietly, input_errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("models", nargs="+", help="30b, 235b, demo, or checkpoint directories")
    add_load_options(add, "v5e")
    counts = "numbers of chips (default: 1 to 256, doubling)"
    add("--counts", type=numbers, metavar="N,N", help=counts)
    most = "compile for up to so many chips; formulas alone beyond (default: 256)"
    add("--most", type=int, default=256, metavar="N", help=most)
    out = "write all rows as JSON, read again what is there, and go on"
    add("--out", type=Path, metavar="FILE", help=out)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        from _scaling_rows import Rows
        from _scaling_table import as_text

        from jaxmoe.planning.scaling import COUNTS

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


if __name__ == "__main__":
    sys.exit(main())
