"""Small trained models that come with the package, and the game that they play.

"demo" answers a problem in one try; "demo-tries" says so where a try fails, and goes on
with another, up to six times.

import jax, jaxmoe, jaxmoe.demo

model = jaxmoe.load("demo")
problem = jaxmoe.demo.problems("test")[0]
out = jaxmoe.sample(model, problem.prompt, key=jax.random.key(0), n=32)
[jaxmoe.demo.is_right(problem, text) for text in out.text]
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from jaxmoe.demo.numbers_game import Problem, error_in, expression, is_right

PROBLEMS = Path(__file__).resolve().parent / "problems.json"


@functools.lru_cache
def bands(split: str = "test", path: Path = PROBLEMS) -> Mapping[Problem, str]:
    """The problems of "test" or "validation", each "easy" or "hard".

    512 each, in an order of no meaning, whose sets of numbers the models have not been
    trained on. Half of them are easy, with 8 answers or more, half hard, with 3 to 7.

    path: another file of problems.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    if split not in stored:
        raise ValueError(
            f"split must be one of {', '.join(stored)}, found {split!r}; training "
            "problems are in jaxmoe.demo.chains"
        )
    found = {Problem.parse(prompt): band for prompt, band in stored[split]}
    return MappingProxyType(found)


def problems(split: str = "test") -> list[Problem]:
    """The problems of `bands`."""
    return list(bands(split))


__all__ = ["Problem", "bands", "error_in", "expression", "is_right", "problems"]
