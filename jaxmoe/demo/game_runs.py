"""The demo's problems put to a model, and how it did."""

import os
from collections.abc import Callable, Sequence
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


def room_for(tries: int) -> int:
    """Tokens of a whole answer, and a little over, so that a long one is seen to be."""
    return tries * ANSWER_LENGTH + 6


MAX_NEW_TOKENS = room_for(1)
"""Of an answer of one try."""
TRIES = {"demo": 1, "demo-tries": 6}
"""Bundled model -> the most tries that it was trained to make."""


def room_of(checkpoint: str | os.PathLike | None) -> int:
    """Tokens that an answer of a bundled model needs; of others those of one try."""
    return room_for(TRIES.get(str(checkpoint), 1))


@dataclass(frozen=True)
class Outcome:
    """How n answers to each of P problems came out.

    marks: bool [P, n], whether each answer is right. first: the first answer to each
    problem.
    """

    problems: tuple[Problem, ...]
    marks: Bool[np.ndarray, "P n"]
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

    def first_texts(self) -> list[str]:
        """Each problem and its first answer as one text, as the model wrote it."""
        pairs = zip(self.problems, self.first, strict=True)
        return [problem.prompt + answer for problem, answer in pairs]

    def budgets(self) -> list[int]:
        """1, 2, 4, ... and n."""
        powers = [1 << i for i in range(self.n.bit_length())]
        return powers if powers[-1] == self.n else [*powers, self.n]

    def values(self, measure: str) -> np.ndarray:
        """ "accuracy" (the share of right answers) or "pass@k", float64 [P]."""
        if measure == "accuracy":
            return self.right / self.n
        return pass_at(self.right, self.n, int(measure.removeprefix("pass@")))

    def interval(self, measure: str) -> Interval:
        """The mean of `values`; whole sets of numbers are resampled."""
        return bootstrap(self.values(measure), groups=self.groups)

    def measures(self) -> dict[str, Interval]:
        """Mean accuracy, which is pass@1, and pass@n for every budget above 1."""
        names = ["accuracy", *(f"pass@{k}" for k in self.budgets()[1:])]
        return {name: self.interval(name) for name in names}

    def first_of(self, problems: int, n: int) -> "Outcome":
        """The outcome of the first n answers to the first problems."""
        some = self.problems[:problems]
        return Outcome(some, self.marks[:problems, :n], self.first[:problems])

    def of(self, chosen: Bool[np.ndarray, "P"]) -> "Outcome":
        """The outcome of some of the problems."""
        some = [p for p, c in zip(self.problems, chosen, strict=True) if c]
        return Outcome(tuple(some), self.marks[chosen])


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
    first = tuple(row[0].text for row in records)
    return Outcome(tuple(problems), np.array(marks), first)
