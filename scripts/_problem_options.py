"""Options that scripts share: which of the demo's problems."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxmoe.demo import Problem


def add_problems_option(parser: argparse.ArgumentParser) -> None:
    """Adds --problems."""
    text = "only the first P (default: all 512)"
    parser.add_argument("--problems", type=int, metavar="P", help=text)


def first_problems(split: str, count: int | None) -> "list[Problem]":
    """The first problems of a split; a ValueError for more than it has, or none."""
    from jaxmoe import demo

    problems = demo.problems(split)
    if count is not None and not 1 <= count <= len(problems):
        raise ValueError(f"--problems must be 1 to {len(problems)}, found {count}")
    return problems[:count]
