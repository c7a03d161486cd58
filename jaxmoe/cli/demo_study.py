"""Measures the method on the demo model; a killed run goes on where it was."""

import argparse
from pathlib import Path

import jaxmoe
from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli.demo_rows import check_kept, first_asked, play_row
from jaxmoe.demo.held_out import read_part
from jaxmoe.demo.pilot import chosen, measured, pilot_draw
from jaxmoe.demo.study import configurations, unfinished
from jaxmoe.demo.study_files import write_study
from jaxmoe.reports.plots import require_matplotlib

PILOT = "pilot"

EPILOG = """\
Draws the answers of every configuration of jaxmoe/demo/study.py to the problems of
jaxmoe/demo/study/problems.json, as jaxmoe/demo/study/design.md says, and writes
results.json, table.md and three figures into OUT."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    add = parser.add_argument
    out = "the directory to write into (default: demo-study)"
    add(
        "out", metavar="OUT", type=Path, nargs="?", default=Path("demo-study"), help=out
    )
    problems = "only the first P (default: all)"
    slots = "answers computed side by side (default: 256)"
    only = (
        "draw just these configurations (two runs can share OUT); results are written "
        "where all main rows are among them, and name what is left out"
    )
    pilot = "draw the pilot's answers, and say how hard the study's problems are to be"
    add("--problems", type=int, metavar="P", help=problems)
    add("--slots", type=int, metavar="S", default=256, help=slots)
    add("--only", metavar="NAME", nargs="+", default=[], help=only)
    add("--pilot", action="store_true", help=pilot)


def run(args: argparse.Namespace) -> int:
    """Draws what is missing, and writes the results; 0."""
    rows = configurations()
    if unknown := [name for name in args.only if name not in rows]:
        raise ValueError(f"expected names of {list(rows)}, found {unknown}")
    if args.pilot and args.only:
        raise ValueError("--only is of the study's rows, found it with --pilot")
    asked = first_asked(read_part("pilot" if args.pilot else "study"), args.problems)
    reports = not args.pilot and (not args.only or not unfinished(args.only))
    if reports:
        require_matplotlib()  # now rather than after hours
        check_kept(args.out, args.only or rows)
    checkpoint = open_source("demo").digest()
    model = jaxmoe.load("demo")
    if args.pilot:
        draw = pilot_draw(args.slots)
        outcome = play_row(args.out, PILOT, model, asked, draw, checkpoint)
        found = measured(outcome, asked)
        for (kind, answers), interval in found.items():
            print(f"{kind:9} {answers} answers: pass@64 {interval}")
        print(f"chosen: {chosen(found)}")
        return 0
    outcomes = {
        name: play_row(
            args.out,
            name,
            model,
            asked[: row.problems],
            row.draw(args.slots),
            checkpoint,
        )
        for name, row in rows.items()
        if not args.only or name in args.only
    }
    if reports:
        about = {"checkpoint": checkpoint}
        print(write_study(args.out, model, outcomes, about, args.slots))
    return 0
