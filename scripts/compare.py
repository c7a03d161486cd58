"""Compares runs of `evaluate.py` on the same questions; the first is the baseline."""

import argparse
import json
import sys
from pathlib import Path

from _compare_files import Outputs, write_outputs
from _run_json import comparison_object
from _run_text import comparison_text

from jaxmoe.cli.endings import ends_quietly, input_errors

EPILOG = """\
Differences are paired by problem, with 95 % bootstrap intervals over groups of problems
and a permutation test."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    add("runs", metavar="RUN", nargs="+", type=Path, help="a run directory")
    add("--html", metavar="FILE", type=Path, help="write a report, with PNG and CSV")
    add("--title", help="of the report")
    add("--router", metavar="FILE", type=Path, help="router.json for the report")
    scores = "a verifier's scores of a run's answers (JSON lines); may be repeated"
    add("--scores", metavar="RUN=FILE", action="append", default=[], help=scores)
    partial = "leave out problems whose answers are not all there"
    add("--partial", action="store_true", help=partial)
    add("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        from jaxmoe.evals.compare import compare
        from jaxmoe.evals.run import read_run

        runs = [read_run(path, partial=args.partial) for path in args.runs]
        found = compare(runs, scores=_scores(args.scores, runs))
        if args.html is not None:
            write_outputs(found, Outputs(args.html, args.title, args.router))
    print(json.dumps(comparison_object(found)) if args.json else comparison_text(found))
    return 0


def _scores(given: list[str], runs) -> dict[str, dict]:
    """Run name -> score name -> scores, from RUN=FILE."""
    from jaxmoe.evals.score_files import read_scores

    by_name = {run.name: run for run in runs}
    found: dict[str, dict] = {}
    for text in given:
        name, _, file = text.partition("=")
        if name not in by_name or not file:
            raise ValueError(
                f"--scores must be RUN=FILE with RUN one of {', '.join(by_name)}, "
                f"found {text!r}"
            )
        run = by_name[name]
        read = read_scores(Path(file), run.ids, run.correct.shape[1])
        found.setdefault(name, {})[Path(file).stem] = read
    return found


if __name__ == "__main__":
    sys.exit(main())
