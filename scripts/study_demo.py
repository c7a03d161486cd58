"""Measures the method on the demo model; a killed run goes on where it was.

Draws the answers of every configuration of jaxmoe/demo/study.py, and writes
results.json, table.md and three figures into OUT.
"""

import argparse
import sys
import time
from pathlib import Path

from _study_output import answers_file, write_study

from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli.bars import ProgressBar
from jaxmoe.cli.endings import ends_quietly, input_errors
from jaxmoe.cli.problem_options import add_problems_option, first_problems


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("out", metavar="OUT", type=Path, nargs="?", default=Path("demo-study"))
    add_problems_option(parser)
    slots = "answers computed side by side (default: 256)"
    only = (
        "draw just these configurations, and write no results (two runs can share OUT)"
    )
    add("--slots", type=int, metavar="S", default=256, help=slots)
    add("--only", metavar="NAME", nargs="+", default=[], help=only)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        import jaxmoe
        from jaxmoe.demo.game_runs import play
        from jaxmoe.demo.study import configurations
        from jaxmoe.reports.plots import require_matplotlib

        rows = configurations()
        if unknown := [name for name in args.only if name not in rows]:
            raise ValueError(f"expected names of {list(rows)}, found {unknown}")
        problems = first_problems("test", args.problems)
        if not args.only:
            require_matplotlib()  # now rather than after hours
        about = {"checkpoint": open_source("demo").digest()}
        model = jaxmoe.load("demo")
        outcomes = {}
        for name, row in rows.items():
            if args.only and name not in args.only:
                continue
            began = time.perf_counter()
            path = answers_file(args.out, name)
            draw = row.draw(args.slots)
            with ProgressBar(len(problems), quiet=False) as board:
                outcomes[name] = play(
                    model, problems, draw, path, about=about, progress=board.show
                )
            accuracy = outcomes[name].values("accuracy").mean()
            seconds = time.perf_counter() - began
            print(f"{name:24} accuracy {accuracy:.1%}  {seconds:.0f} s", flush=True)
        if not args.only:
            write_study(args.out, model, outcomes, about, args.slots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
