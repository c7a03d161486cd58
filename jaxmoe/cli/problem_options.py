"""Options: which of the demo's problems."""

from jaxmoe import demo
from jaxmoe.demo import Problem


def first_problems(split: str, count: int | None) -> list[Problem]:
    """The first problems of a split; a ValueError for more than it has, or none."""
    problems = demo.problems(split)
    if count is not None and not 1 <= count <= len(problems):
        raise ValueError(f"--problems must be 1 to {len(problems)}, found {count}")
    return problems[:count]
