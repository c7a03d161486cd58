"""The demo's problems put to a model, and how it did."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxmoe.demo.countdown import Countdown
from jaxmoe.demo.encoding import ANSWER_LENGTH
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.evaluate import Keep, Status, evaluate
from jaxmoe.evals.metrics import Interval, bootstrap, pass_at
from jaxmoe.evals.run import read_run
from jaxmoe.model import Model
from jaxmoe.typing import Bool, Int

MAX_NEW_TOKENS = ANSWER_LENGTH + 6
"""Of an answer: a whole one, and a little over, so that a long one is seen to be so."""


@dataclass(frozen=True)
class Outcome:
    """How n answers to each of P problems came out.

    marks: bool [P, n], whether each answer is right. distinct: int [P], distinct right
    answers (`expression`). first: the first answer to each problem.
    """

    problems: tuple[Problem, ...]
    marks: Bool[np.ndarray, "P n"]
    distinct: Int[np.ndarray, "P"]
    first: tuple[str, ...] = ()

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
    path: Path,
    *,
    checkpoint: str,
    progress: Callable[[Status], None] | None = None,
) -> Outcome:
    """Draws answers to problems into the run directory `path`, or goes on there.

    checkpoint, progress: as in `jaxmoe.evals.evaluate.evaluate`.
    """
    task = Countdown()
    questions = [
        task.question({"prompt": problem.prompt}, id=str(j), seed=0, template=None)
        for j, problem in enumerate(problems)
    ]
    evaluate(
        model,
        task,
        questions,
        draw,
        path,
        checkpoint=checkpoint,
        data={"file": "the demo's own problems"},
        keep=Keep(certainty=False),
        progress=progress,
    )
    records = read_run(path).records
    marks = [[record.correct for record in row] for row in records]
    # The answer of a right one is its expression.
    distinct = [len({r.answer for r in row if r.correct}) for row in records]
    first = tuple(row[0].text for row in records)
    return Outcome(tuple(problems), np.array(marks), np.array(distinct), first)


def of_band(
    outcome: Outcome, bands: Mapping[Problem, str], band: str
) -> Outcome | None:
    """The outcome of the problems of a band; None where there are none."""
    chosen = np.array([bands.get(problem) == band for problem in outcome.problems])
    return outcome.of(chosen) if chosen.any() else None
