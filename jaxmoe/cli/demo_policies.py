"""Measures every policy, and ways to one answer of many, on a demo model."""

import argparse
from pathlib import Path

import jaxmoe
from jaxmoe.checkpoints.bundled import BUNDLED
from jaxmoe.checkpoints.source import open_source
from jaxmoe.cli.bars import EvaluationBar
from jaxmoe.cli.problem_options import first_problems
from jaxmoe.decode.inputs import check_whole
from jaxmoe.demo import policy_study
from jaxmoe.demo.countdown import questions
from jaxmoe.demo.game_runs import room_of
from jaxmoe.files import write_text

EPILOG = """\
Draws the answers of every row of jaxmoe/demo/policy_study.py, and writes policies.md
into OUT; a killed run goes on where it was."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    add, where = parser.add_argument, Path("demo-policies")
    out = "the directory to write into (default: demo-policies)"
    add("out", metavar="OUT", type=Path, nargs="?", default=where, help=out)
    shipped = "the shipped model that is asked (default: demo)"
    add("--of", choices=BUNDLED, default="demo", help=shipped)
    problems = "only the first P of the test problems (default: all)"
    add("--problems", type=int, metavar="P", help=problems)
    add("--n", type=int, default=8, help="answers to each problem (default: 8)")
    slots = "answers computed side by side (default: 256)"
    add("--slots", type=int, metavar="S", default=256, help=slots)


def run(args: argparse.Namespace) -> int:
    """Draws what is missing, and writes the table; 0."""
    for name in ("n", "slots"):
        check_whole(f"--{name}", getattr(args, name))
    asked = questions("test")[: len(first_problems("test", args.problems))]
    model, checkpoint = jaxmoe.load(args.of), open_source(args.of).digest()
    config = model.config
    rows = policy_study.rows(config.num_layers, config.num_experts, args.n)
    runs = {}
    for number, (name, row) in enumerate(rows.items()):
        print(f"[{number + 1}/{len(rows)}] {name}", flush=True)
        with EvaluationBar(quiet=False) as bar:
            runs[name] = policy_study.draw_row(
                model,
                row,
                asked,
                args.out / "answers" / f"{number:02}",
                n=args.n,
                slots=args.slots,
                most=room_of(args.of),
                checkpoint=checkpoint,
                progress=bar.show,
            )
    text = policy_study.table_of(runs)
    write_text(args.out / "policies.md", text)
    print(text)
    return 0
