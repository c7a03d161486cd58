"""Grades a run's answers again, or answers that another engine drew."""

import argparse
from pathlib import Path

from jaxmoe.checkpoints.gcs import require_local
from jaxmoe.cli.endings import command
from jaxmoe.cli.questions import questions_of
from jaxmoe.cli.sampling_options import seed
from jaxmoe.cli.task_options import add_task_options
from jaxmoe.evals.regrade import grade_again, grade_file
from jaxmoe.evals.run import read_run
from jaxmoe.evals.summary import summarise
from jaxmoe.reports.comparison_text import as_text

EPILOG = """\
A run directory is graded again in place, as its task grades now; texts and scores stay.
A file (JSON lines, CSV or Parquet) has a row for each answer, or for each problem with
a list of them: the problem's id and the text, a chat completion, or a batch reply."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe grade", description=__doc__, epilog=EPILOG)
    add = made.add_argument
    add("answers", metavar="RUN|FILE", type=Path, help="a run directory, or a file")
    out = "for a file: the run directory to make of it"
    add("--out", metavar="DIR", type=Path, help=out)
    add("--seed", type=seed, default=0, help="the run's own (default: 0)")
    add("--graders", type=int, default=1, help="threads that grade (default: 1)")
    add_task_options(made)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    require_local(args.answers)
    again = args.answers.is_dir()
    if again == (args.out is not None):
        wanted = "no --out, as a run is graded in place" if again else "--out DIR"
        raise ValueError(f"{args.answers} needs {wanted}")
    if not args.answers.exists():
        raise ValueError(f"expected a run directory or a file, found no {args.answers}")
    task, questions, data = questions_of(args)
    if again:
        found = grade_again(args.answers, task, questions, graders=args.graders)
        print(
            f"{found.total} answers graded again: {found.gained} are right now, "
            f"{found.lost} are not any more, {found.moved} others changed"
        )
    else:
        grade_file(args.answers, task, questions, args.out, data=data)
    print(as_text(summarise(read_run(args.answers if again else args.out))))
    return 0
