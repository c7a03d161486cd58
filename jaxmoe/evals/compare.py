"""Runs held against the first of them, problem by problem."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxmoe.evals.comparison import Comparison, Difference, Example
from jaxmoe.evals.metrics import paired_difference
from jaxmoe.evals.run import Run, shared
from jaxmoe.evals.significance import permutation_test
from jaxmoe.evals.summary import (
    ACCURACY,
    MAJORITY,
    Values,
    scores_of,
    summarise,
    values_of,
)
from jaxmoe.typing import Bool, Float

EXAMPLES = 12
"""Problems shown that one run solved alone."""

SOLVED = "accuracy, solved by"
UNSOLVED = "accuracy, not solved by"


def compare(
    runs: Sequence[Run],
    *,
    scores: Mapping[str, Mapping[str, Float[np.ndarray, "P n"]]] | None = None,
    examples: int = EXAMPLES,
    seed: int = 0,
) -> Comparison:
    """Summaries of all runs, and what sets each apart from the first, the baseline.

    Differences are paired by problem: the same problems were put to all. They are of
    accuracy, of the majority vote, of pass@k for every k that both have, and of
    accuracy among the problems that the baseline solved (at least half of its answers
    right) and among the others. Because the baseline's own luck decides which problems
    count as solved, any other run is expected to lose a little on those and to gain on
    the others; the reader is told so.

    Args:
      scores: run name -> score name -> score of each answer.

    Raises:
      ValueError: no runs, two of one name, or runs of different questions.
    """
    if not runs:
        raise ValueError("expected at least one run, found none; name run directories")
    runs = shared(runs)
    _check_names([run.name for run in runs])
    more = scores or {}
    values = [values_of(run, scores_of(run, more.get(run.name))) for run in runs]
    solved = values[0][ACCURACY] >= 0.5
    splits = [_split(found, solved, runs[0].name) for found in values]
    return Comparison(
        task=str(runs[0].manifest["task"]),
        problems=tuple(runs[0].ids),
        groups=len(set(runs[0].groups)),
        runs=tuple(
            summarise(run, scores=more.get(run.name), seed=seed) for run in runs
        ),
        differences=tuple(
            difference
            for run, found, parts in zip(runs[1:], values[1:], splits[1:], strict=True)
            for difference in [
                *_differences(runs[0], run, values[0], found, seed),
                *_within(runs[0], run, splits[0], parts, solved, seed),
            ]
        ),
        examples=tuple(_examples(runs)[:examples]),
    )


def _check_names(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"expected run directories of different names, found {twice[0]} twice; "
            "rename one of them"
        )


def _differences(
    a: Run, b: Run, values_a: Values, values_b: Values, seed: int
) -> list[Difference]:
    """b less a, where both have the measure and it means the same."""
    names = [ACCURACY, *(m for m in values_a if m.startswith("pass@")), MAJORITY]
    both = [name for name in names if name in values_a and name in values_b]
    if a.correct.shape[1] != b.correct.shape[1]:
        # The vote of more answers is another measure.
        both = [name for name in both if name != MAJORITY]
    return [
        _difference(a.name, b.name, m, values_a[m], values_b[m], a.groups, seed)
        for m in both
    ]


def _difference(
    a: str,
    b: str,
    measure: str,
    values_a: Float[np.ndarray, "P"],
    values_b: Float[np.ndarray, "P"],
    groups: Sequence[str],
    seed: int,
) -> Difference:
    interval = paired_difference(values_b, values_a, groups=groups, seed=seed)
    test = permutation_test(values_b, values_a, groups, seed=seed)
    return Difference(a, b, measure, interval, test.p_value, test.exact)


def _split(
    values: Values, solved: Bool[np.ndarray, "P"], baseline: str
) -> dict[str, Float[np.ndarray, "_"]]:
    """Accuracy among the problems that the baseline solved, and among the others."""
    accuracy = values[ACCURACY]
    return {
        f"{SOLVED} {baseline}": accuracy[solved],
        f"{UNSOLVED} {baseline}": accuracy[~solved],
    }


def _within(
    a: Run,
    b: Run,
    values_a: Mapping[str, Float[np.ndarray, "_"]],
    values_b: Mapping[str, Float[np.ndarray, "_"]],
    solved: Bool[np.ndarray, "P"],
    seed: int,
) -> list[Difference]:
    groups = np.array(a.groups, object)
    masks = (solved, ~solved)
    return [
        _difference(
            a.name, b.name, m, values_a[m], values_b[m], groups[mask].tolist(), seed
        )
        for m, mask in zip(values_a, masks, strict=True)
        if mask.any()
    ]


def _examples(runs: Sequence[Run]) -> list[Example]:
    """Problems that just one run solved, those it solved most surely first."""
    if len(runs) == 1:
        return []
    right = np.stack([run.correct.sum(axis=1) for run in runs])
    alone = np.flatnonzero((right > 0).sum(axis=0) == 1)
    surest = sorted(alone, key=lambda j: -right[:, j].max())
    return [_example(runs, int(j), right[:, j]) for j in surest]


def _example(runs: Sequence[Run], j: int, right: np.ndarray) -> Example:
    solver = runs[int(right.argmax())]
    texts = {
        run.name: next((r.text for r in run.records[j] if r.correct), None)
        or run.records[j][0].text
        for run in runs
    }
    manifest = solver.manifest
    return Example(
        problem=solver.ids[j],
        prompt=manifest["prompts"][manifest["problems"].index(solver.ids[j])],
        reference=manifest["references"][manifest["problems"].index(solver.ids[j])],
        solved_by=solver.name,
        right={run.name: int(c) for run, c in zip(runs, right, strict=True)},
        answers=texts,
    )
