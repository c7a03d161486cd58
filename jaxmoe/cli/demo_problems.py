"""Writes problems of the numbers game, such as those to draw training answers to."""

import argparse
import json
from pathlib import Path
from typing import get_args

from jaxmoe.cli.sampling_options import seed
from jaxmoe.decode.inputs import check_whole
from jaxmoe.demo.chains import Split, draw_problems
from jaxmoe.files import write_text

EPILOG = """\
`jaxmoe evaluate --task countdown --data FILE` asks them. Half of them have 8 answers or
more, the others 3 to 7."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    add = parser.add_argument
    add("out", metavar="FILE", type=Path, help="JSON lines, one a problem")
    split = "whose sets of numbers they are of (default: train)"
    add("--split", choices=get_args(Split), default="train", help=split)
    count = "how many (default: 1024)"
    add("--count", type=int, metavar="N", default=1024, help=count)
    add("--seed", type=seed, default=0, help="which of them (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Draws the problems and writes them; 0."""
    check_whole("--count", args.count)
    drawn = draw_problems(args.split, args.count, args.seed)
    lines = (json.dumps({"prompt": problem.prompt}) for problem, _ in drawn)
    write_text(args.out, "".join(f"{line}\n" for line in lines))
    return 0
