"""The demo's problem: which one is asked, and whether answers to it are right."""

import argparse
from typing import TYPE_CHECKING, Any

from _prompt_options import check_prompt_options

if TYPE_CHECKING:
    from jaxmoe.demo import Problem

DEMO = "demo"


def add_problem_option(parser: argparse.ArgumentParser) -> None:
    """Adds --problem."""
    text = (
        "ask the demo model test problem N, 0 to 511 (default: 0), and mark the "
        "answers; --prompt 2,5,8,12=27: asks one of your own"
    )
    parser.add_argument("--problem", type=int, metavar="N", help=text)


def judge_of(args: argparse.Namespace) -> "Judge | None":
    """Who judges answers of the demo model; None for another model or prompt.

    Raises a ValueError for options of a prompt that do not fit.
    """
    if args.checkpoint != DEMO and args.problem is not None:
        raise ValueError("--problem goes with the demo model; leave out CKPT")
    check_prompt_options(args, needed=args.checkpoint != DEMO)
    if args.checkpoint != DEMO:
        return None
    others = (args.prompt, args.chat, args.messages, args.token_ids)
    from jaxmoe import demo

    if all(other is None for other in others):
        problems = demo.problems()
        number = args.problem or 0
        if not 0 <= number < len(problems):
            raise ValueError(
                f"--problem must be from 0 to {len(problems) - 1}, found {number}"
            )
        return Judge(problems[number])
    if args.problem is not None:
        raise ValueError("--problem stands for a prompt; leave out the other one")
    return None if args.prompt is None else Judge(demo.Problem.parse(args.prompt))


class Judge:
    """Counts right answers to one problem; two are distinct if their sums are."""

    def __init__(self, problem: "Problem"):
        self.problem = problem
        self._right = 0
        self._sums: set[str] = set()

    def marks(self, answer: str) -> dict[str, Any]:
        """Whether the next answer is right, and what is wrong with it."""
        from jaxmoe import demo

        error = demo.error_in(self.problem, answer)
        if error is None:
            self._right += 1
            self._sums.add(demo.expression(answer))
        return {"right": error is None, "error": error}

    def heading(self) -> str:
        """The problem in words."""
        numbers = ", ".join(map(str, self.problem.numbers))
        return f"make {self.problem.target} of {numbers}   {self.problem.prompt}\n"

    def totals(self) -> dict[str, int]:
        """Right answers so far, and how many distinct sums they do."""
        return {"right": self._right, "distinct_right": len(self._sums)}
