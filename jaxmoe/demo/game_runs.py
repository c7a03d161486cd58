"""The demo's problems put to a model, and how it did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoe.demo.encoding import ANSWER_LENGTH
from jaxmoe.demo.numbers_game import Problem, expression, is_right
from jaxmoe.evals.metrics import Interval, bootstrap, pass_at
from jaxmoe.evals.runs import Draw, draw_answers
from jaxmoe.model import Model
from jaxmoe.typing import Bool, Int

MAX_NEW_TOKENS = ANSWER_LENGTH + 6
"""Of an answer: a whole one, and a little over, so that a long one is seen to be so."""


@dataclass(frozen=True)
class Outcome:
    """How n answers to each of P problems came out.

    right: int [P], right answers. distinct: int [P], distinct right answers
    (`expression`). all_distinct: int [P], distinct texts, right or wrong.
    """

    problems: tuple[Problem, ...]
    n: int
    right: Int[np.ndarray, "P"]
    distinct: Int[np.ndarray, "P"]
    all_distinct: Int[np.ndarray, "P"]

    def accuracy(self) -> np.ndarray:
        """Share of right answers to each problem, float64 [P]."""
        return self.right / self.n

    def pass_at(self, k: int) -> np.ndarray:
        """pass@k of each problem, float64 [P]."""
        return pass_at(self.right, self.n, k)

    def budgets(self) -> list[int]:
        """1, 2, 4, ... up to n."""
        return [1 << i for i in range(self.n.bit_length())]

    def of(self, chosen: Bool[np.ndarray, "P"]) -> "Outcome":
        """The outcome of some of the problems."""
        some = [p for p, c in zip(self.problems, chosen, strict=True) if c]
        arrays = (self.right, self.distinct, self.all_distinct)
        return Outcome(tuple(some), self.n, *(array[chosen] for array in arrays))


def play(
    model: Model,
    problems: Sequence[Problem],
    draw: Draw,
    path: Path | None = None,
    *,
    about: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Draws answers to problems, or goes on with the run in `path`, and checks them."""
    draw = replace(draw, max_new_tokens=MAX_NEW_TOKENS)
    prompts = [problem.prompt for problem in problems]
    answers = draw_answers(model, prompts, draw, path, about=about, progress=progress)
    right = [
        [text for text in texts if is_right(problem, text)]
        for problem, texts in zip(problems, answers, strict=True)
    ]
    return Outcome(
        tuple(problems),
        draw.n,
        np.array([len(texts) for texts in right]),
        np.array([len({expression(text) for text in texts}) for texts in right]),
        np.array([len(set(texts)) for texts in answers]),
    )


def summary(
    outcome: Outcome, bands: Mapping[Problem, str] | None = None
) -> dict[str, Interval]:
    """Mean accuracy, pass@1, 2, 4, ..., distinct right answers; accuracy by band."""
    rows = {"accuracy": bootstrap(outcome.accuracy())}
    rows |= {f"pass@{k}": bootstrap(outcome.pass_at(k)) for k in outcome.budgets()}
    for band in sorted(set((bands or {}).values())):
        chosen = np.array([bands.get(p) == band for p in outcome.problems])  # type: ignore[union-attr]
        if chosen.any():
            rows[f"accuracy, {band}"] = bootstrap(outcome.of(chosen).accuracy())
    return rows
