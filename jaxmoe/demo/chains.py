"""All problems of the numbers game with all their answers, and who may see which.

There are 1820 sets of four numbers up to 13. A set belongs to training, validation or
test with every one of its targets, so a test problem is not a training problem with
another target, let alone the same one.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jaxmoe.demo.numbers_game import (
    COUNT,
    MAX_RESULT,
    MAX_TARGET,
    SMALLEST,
    Problem,
    last_try,
)

Split = Literal["train", "validation", "test"]
Band = Literal["easy", "hard"]

LARGEST_TRAINED = 13
"""Sets that hold a larger number are in no split."""

OPERATIONS = "+-*/"
FEWEST_ANSWERS = 3
"""Problems with fewer answers are trained on, but not drawn for tests."""
EASY_ANSWERS = 8
"""A problem with at least so many answers is easy, one with fewer is hard."""


@dataclass(frozen=True)
class Chains:
    """Answers, sorted by problem.

    numbers: uint8 [M, 4], the four numbers in ascending order. target: uint8 [M].
    steps: uint8 [M, 3, 4], each step's a, index into `OPERATIONS`, b and result.
    """

    numbers: np.ndarray
    target: np.ndarray
    steps: np.ndarray

    def texts(self) -> list[str]:
        """The answers as they are written."""
        return [
            ",".join(f"{a}{OPERATIONS[o]}{b}={r}" for a, o, b, r in chain)
            for chain in self.steps.tolist()
        ]


def number_sets() -> list[tuple[int, ...]]:
    """The sets that are split, each in ascending order."""
    numbers = range(SMALLEST, LARGEST_TRAINED + 1)
    return list(itertools.combinations_with_replacement(numbers, COUNT))


def split_of(numbers: Sequence[int]) -> Split:
    """Who may see the problems of four numbers: a tenth each validation and test."""
    text = ",".join(map(str, sorted(numbers)))
    draw = hashlib.sha256(text.encode()).digest()[0] % 10
    return "test" if draw == 0 else "validation" if draw == 1 else "train"


def trained_on(numbers: Sequence[int]) -> bool:
    """Whether problems of four numbers are trained on."""
    return max(numbers) <= LARGEST_TRAINED and split_of(numbers) == "train"


def band_of(answers: int) -> Band:
    """Whether a problem with so many answers is easy or hard."""
    return "easy" if answers >= EASY_ANSWERS else "hard"


def all_chains(sets: Sequence[Sequence[int]]) -> Chains:
    """Every answer to every problem of some sets of numbers, each in ascending order.

    Each is written one way: the larger number first, and of two first steps that do not
    build on each other the one with the smallest number first. (Where the smallest
    number is there twice and the two steps take one each, both orders stand.)
    """
    start = np.array(sets, np.int32)
    state = [(start, np.arange(len(sets)), np.zeros((len(sets), 0, 4), np.int32), None)]
    for _ in range(COUNT - 1):
        state = [after for before in state for after in _moves(*before)]
    last = np.concatenate([numbers[:, 0] for numbers, _, _, _ in state])
    owner = np.concatenate([owner for _, owner, _, _ in state])
    steps = np.concatenate([steps for _, _, steps, _ in state])
    fits = last <= MAX_TARGET
    owner, last, steps = owner[fits], last[fits], steps[fits]
    rows = np.concatenate([owner[:, None], last[:, None], steps.reshape(-1, 12)], 1)
    rows = _distinct(rows)
    numbers = start[rows[:, 0]].astype(np.uint8)
    steps = rows[:, 2:].reshape(-1, COUNT - 1, 4).astype(np.uint8)
    return Chains(numbers, rows[:, 1].astype(np.uint8), steps)


def training_chains() -> Chains:
    """Every answer to the problems that are trained on."""
    return all_chains([n for n in number_sets() if trained_on(n)])


def chains_of(answers: Iterable[tuple[Problem, str]]) -> Chains:
    """Right answers as they are written, each once; of several tries the last."""
    rows = [
        [*problem.numbers, problem.target, *_steps(text)] for problem, text in answers
    ]
    found = _distinct(np.array(rows, np.int32).reshape(len(rows), COUNT * 4 + 1))
    steps = found[:, COUNT + 1 :].reshape(-1, COUNT - 1, 4)
    return Chains(
        found[:, :COUNT].astype(np.uint8),
        found[:, COUNT].astype(np.uint8),
        steps.astype(np.uint8),
    )


def _steps(text: str) -> list[int]:
    """a, index into `OPERATIONS`, b and result of each step of a right answer."""
    a, o, b, r = r"(\d+)", f"([{re.escape(OPERATIONS)}])", r"(\d+)", r"(\d+)"
    return [
        OPERATIONS.index(part) if part in OPERATIONS else int(part)
        for step in re.findall(f"{a}{o}{b}={r}", last_try(text))
        for part in step
    ]


def _distinct(rows: np.ndarray) -> np.ndarray:
    """The rows sorted, each once."""
    rows = rows[np.lexsort(rows.T[::-1])]
    return rows[is_new(rows)]


def is_new(rows: np.ndarray) -> np.ndarray:
    """bool [N]: whether each row is another than the one before it."""
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return first


def _moves(numbers, owner, steps, before):
    """The states one step on; `before` says which places the step before took."""
    count = numbers.shape[1]
    for i, j in itertools.combinations(range(count), 2):
        # The result stands last. A second step that leaves the first one's result
        # alone could have come first: only one order is kept.
        if before is not None and j < count - 1 and 0 not in before:
            continue
        low = np.minimum(numbers[:, i], numbers[:, j])
        high = np.maximum(numbers[:, i], numbers[:, j])
        rest = np.delete(numbers, (i, j), axis=1)
        quotient = np.where(high % low == 0, high // low, 0)
        results = (high + low, high - low, high * low, quotient)
        for operation, result in enumerate(results):
            fits = (result >= 1) & (result <= MAX_RESULT)
            step = np.stack([high, np.full_like(high, operation), low, result], 1)
            yield (
                np.concatenate([rest, result[:, None]], 1)[fits],
                owner[fits],
                np.concatenate([steps, step[:, None]], 1)[fits],
                (i, j) if before is None else None,
            )


def count_answers(chains: Chains) -> dict[Problem, int]:
    """Answers to each problem that has any."""
    rows = np.concatenate([chains.numbers, chains.target[:, None]], 1)
    problems, counts = np.unique(rows, axis=0, return_counts=True)
    return {
        Problem(tuple(numbers), target): count
        for (*numbers, target), count in zip(
            problems.tolist(), counts.tolist(), strict=True
        )
    }


def draw_problems(split: Split, count: int, seed: int) -> list[tuple[Problem, Band]]:
    """`count` problems of a split, half of them easy, in an order of no meaning.

    All have at least `FEWEST_ANSWERS` answers.

    Raises:
      ValueError: there are not so many.
    """
    sets = [numbers for numbers in number_sets() if split_of(numbers) == split]
    bands: dict[Band, list[Problem]] = {"easy": [], "hard": []}
    for problem, answers in sorted(count_answers(all_chains(sets)).items()):
        if answers >= FEWEST_ANSWERS:
            bands[band_of(answers)].append(problem)
    most = min(2 * len(bands["easy"]), 2 * len(bands["hard"]) + 1)
    if count > most:
        raise ValueError(
            f"expected at most {most} problems of {split}, half of them easy, found "
            f"{count}; draw fewer"
        )
    rng = random.Random(seed)
    shares: dict[Band, int] = {"easy": count - count // 2, "hard": count // 2}
    drawn: list[tuple[Problem, Band]] = [
        (problem, band)
        for band, some in bands.items()
        for problem in rng.sample(some, shares[band])
    ]
    rng.shuffle(drawn)
    return drawn
