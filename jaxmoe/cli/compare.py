"""Compares runs of `jaxmoe evaluate` on the same questions; the first: the baseline."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmoe.cli.endings import command, figures_if_possible
from jaxmoe.evals.compare import compare
from jaxmoe.evals.run import Run, read_run
from jaxmoe.evals.score_files import read_scores_of
from jaxmoe.reports.comparison_files import write_comparison
from jaxmoe.reports.comparison_json import comparison_object
from jaxmoe.reports.comparison_text import comparison_text

EPILOG = """\
Differences are paired by problem, with 95 % intervals (Student's t over groups of
problems) and a permutation test."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe compare", description=__doc__, epilog=EPILOG)
    add = made.add_argument
    add("runs", metavar="RUN", nargs="+", type=Path, help="a run directory")
    add("--html", metavar="FILE", type=Path, help="write a report, with PNG and CSV")
    add("--title", help="of the report")
    add("--router", metavar="FILE", type=Path, help="router.json for the report")
    scores = "a verifier's scores of a run's answers (JSON lines); may be repeated"
    add("--scores", metavar="RUN=FILE", action="append", default=[], help=scores)
    partial = "leave out problems whose answers are not all there"
    add("--partial", action="store_true", help=partial)
    add("--json", action="store_true", help="print one JSON object")
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    runs = [read_run(path, partial=args.partial) for path in args.runs]
    found = compare(runs, scores=_scores(args.scores, runs))
    if args.html is not None:
        with figures_if_possible("no figure"):
            write_comparison(found, args.html, title=args.title, router=args.router)
    print(json.dumps(comparison_object(found)) if args.json else comparison_text(found))
    return 0


def _scores(given: list[str], runs: Sequence[Run]) -> dict[str, dict[str, np.ndarray]]:
    """Run name -> score name -> scores, from RUN=FILE."""
    by_name = {run.name: run for run in runs}
    found: dict[str, dict[str, np.ndarray]] = {}
    for text in given:
        name, _, file = text.partition("=")
        if name not in by_name or not file:
            raise ValueError(
                f"--scores must be RUN=FILE with RUN one of {', '.join(by_name)}, "
                f"found {text!r}"
            )
        run = by_name[name]
        read = read_scores_of(run, Path(file))
        found.setdefault(name, {})[Path(file).stem] = read
    return found
