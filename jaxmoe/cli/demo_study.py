"""Measures the method on the demo model; a killed run goes on where it was."""

import argparse
import time
from pathlib import Path

import jaxmoe
from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli.bars import EvaluationBar
from jaxmoe.cli.problem_options import add_problems_option, first_problems
from jaxmoe.demo import game_runs
from jaxmoe.demo.study import configurations
from jaxmoe.demo.study_files import answers_folder, write_study
from jaxmoe.reports.plots import require_matplotlib

EPILOG = """\
Draws the answers of every configuration of jaxmoe/demo/study.py, and writes
results.json, table.md and three figures into OUT."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    add = parser.add_argument
    out = "the directory to write into (default: demo-study)"
    add(
        "out", metavar="OUT", type=Path, nargs="?", default=Path("demo-study"), help=out
    )
    add_problems_option(parser)
    slots = "answers computed side by side (default: 256)"
    only = (
        "draw just these configurations, and write no results (two runs can share OUT)"
    )
    add("--slots", type=int, metavar="S", default=256, help=slots)
    add("--only", metavar="NAME", nargs="+", default=[], help=only)


def run(args: argparse.Namespace) -> int:
    """Draws what is missing, and writes the results; 0."""
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
        with EvaluationBar(quiet=False) as bar:
            outcomes[name] = game_runs.play(
                model,
                problems,
                row.draw(args.slots),
                answers_folder(args.out, name),
                checkpoint=about["checkpoint"],
                progress=bar.show,
            )
        accuracy = outcomes[name].values("accuracy").mean()
        seconds = time.perf_counter() - began
        print(f"{name:24} accuracy {accuracy:.1%}  {seconds:.0f} s", flush=True)
    if not args.only:
        print(write_study(args.out, model, outcomes, about, args.slots))
    return 0
