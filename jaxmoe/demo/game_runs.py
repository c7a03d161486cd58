"""The demo's problems put to a model, and how it did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    marks: bool [P, n], whether each answer is right. distinct: int [P], distinct right
    answers (`expression`).
    """

    problems: tuple[Problem, ...]
    marks: Bool[np.ndarray, "P n"]
    distinct: Int[np.ndarray, "P"]

    @property
    def n(self) -> int:
        """Answers to each problem."""
        return self.marks.shape[1]

    @property
    def right(self) -> Int[np.ndarray, "P"]:
        """Right answers to each problem."""
        return self.marks.sum(axis=1)

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """The set of numbers of each problem: problems of one set are alike."""
        return [problem.numbers for problem in self.problems]

    def budgets(self) -> list[int]:
        """1, 2, 4, ... and n."""
        powers = [1 << i for i in range(self.n.bit_length())]
        return powers if powers[-1] == self.n else [*powers, self.n]

    def values(self, measure: str, first: int | None = None) -> np.ndarray:
        """ "accuracy" (the share of right answers) or "pass@k", float64 [P].

        first: only so many answers are looked at, where not all.
        """
        marks = self.marks[:, :first]
        right, n = marks.sum(axis=1), marks.shape[1]
        if measure == "accuracy":
            return right / n
        return pass_at(right, n, int(measure.removeprefix("pass@")))

    def interval(self, measure: str) -> Interval:
        """The mean of `values`; whole sets of numbers are resampled."""
        return bootstrap(self.values(measure), groups=self.groups)

    def measures(self) -> dict[str, Interval]:
        """Mean accuracy, which is pass@1, and pass@n for every budget above 1."""
        names = ["accuracy", *(f"pass@{k}" for k in self.budgets()[1:])]
        return {name: self.interval(name) for name in names}

    def of(self, chosen: Bool[np.ndarray, "P"]) -> "Outcome":
        """The outcome of some of the problems."""
        some = [p for p, c in zip(self.problems, chosen, strict=True) if c]
        return Outcome(tuple(some), self.marks[chosen], self.distinct[chosen])


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
    prompts = [problem.prompt for problem in problems]
    answers = draw_answers(model, prompts, draw, path, about=about, progress=progress)
    marks, distinct = [], []
    for problem, texts in zip(problems, answers, strict=True):
        marks.append([is_right(problem, text) for text in texts])
        right = (text for text, mark in zip(texts, marks[-1], strict=True) if mark)
        distinct.append(len({expression(text) for text in right}))
    return Outcome(tuple(problems), np.array(marks), np.array(distinct))


def of_band(
    outcome: Outcome, bands: Mapping[Problem, str], band: str
) -> Outcome | None:
    """The outcome of the problems of a band; None where there are none."""
    chosen = np.array([bands.get(problem) == band for problem in outcome.problems])
    return outcome.of(chosen) if chosen.any() else None
