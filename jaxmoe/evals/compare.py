"""Runs held against the first of them, problem by problem."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from jaxmoe.evals.comparison import Comparison, Difference
from jaxmoe.evals.examples import examples_of
from jaxmoe.evals.grading import graders_in
from jaxmoe.evals.metrics import Interval, bootstrap, paired_difference
from jaxmoe.evals.run import Run, shared
from jaxmoe.evals.significance import holm, permutation_test
from jaxmoe.evals.store import differences
from jaxmoe.evals.summary import (
    ACCURACY,
    MAJORITY,
    Values,
    scores_of,
    summarise,
    values_of,
)
from jaxmoe.typing import Bool, Float

SOLVED = "accuracy on problems solved by"
UNSOLVED = "accuracy on problems not solved by"


def compare(
    runs: Sequence[Run],
    *,
    scores: Mapping[str, Mapping[str, Float[np.ndarray, "P n"]]] | None = None,
    seed: int = 0,
) -> Comparison:
    """Summaries of all runs, and what sets each apart from the first, the baseline.

    Differences are paired by problem: the same problems were put to all. They are of
    accuracy, of the majority vote, of pass@k for every k that both have, and of
    accuracy among the problems that the baseline solved and among the others. A
    problem counts as solved if at least half of the baseline's answers of even index
    are right, and accuracy there is that of answers of odd index, in all runs: answers
    that chose the problems would be luckier on them than others.

    Args:
      scores: run name -> score name -> score of each answer of that run.

    Raises:
      ValueError: no runs, two of one name, or runs of different questions.
    """
    if not runs:
        raise ValueError("expected at least one run, found none; name run directories")
    _check_names([run.name for run in runs])
    _warn_of_gradings(runs)
    given, runs = runs, shared(runs)
    more = {
        run.name: _cut((scores or {}).get(run.name, {}), run, runs) for run in given
    }
    values = [values_of(run, scores_of(run, more[run.name])) for run in runs]
    solved = runs[0].correct[:, ::2].mean(axis=1) >= 0.5
    splits = [_split(run, solved, runs[0].name) for run in runs]
    groups = np.array(runs[0].groups, object)
    parts = {name: groups[mask].tolist() for name, (_, mask) in splits[0].items()}
    summaries = (summarise(run, scores=more[run.name], seed=seed) for run in runs)
    differences = [
        difference
        for run, found, split in zip(runs[1:], values[1:], splits[1:], strict=True)
        for difference in [
            *_differences(runs[0], run, values[0], found, seed),
            *_within(runs[0], run, splits[0], split, parts, seed),
        ]
    ]
    adjusted = holm([d.p_value for d in differences])
    return Comparison(
        task=str(runs[0].manifest["task"]),
        problems=tuple(runs[0].ids),
        groups=len(set(runs[0].groups)),
        runs=tuple(
            replace(found, measures=dict(found.measures) | _rates(split, parts, seed))
            for found, split in zip(summaries, splits, strict=True)
        ),
        differences=tuple(
            replace(d, adjusted=float(p))
            for d, p in zip(differences, adjusted, strict=True)
        ),
        examples=examples_of(runs),
    )


def _cut(
    scores: Mapping[str, Float[np.ndarray, "_ n"]], run: Run, runs: Sequence[Run]
) -> dict[str, Float[np.ndarray, "P n"]]:
    """Scores of the problems that all runs have, in their order."""
    rows = [run.ids.index(id) for id in runs[0].ids]
    return {name: score[rows] for name, score in scores.items()}


def _check_names(names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"expected run directories of different names, found {twice[0]} twice; "
            "rename one of them"
        )


def _warn_of_gradings(runs: Sequence[Run]) -> None:
    """Warns where other graders or libraries than the first run's were at work."""
    first = runs[0]
    for run in runs[1:]:
        if first.grading is None or run.grading is None:
            continue
        graders = graders_in(first.grading), graders_in(run.grading)
        if differ := differences(*graders, first.name, run.name):
            warnings.warn(
                f"{first.name} and {run.name} were graded by different versions "
                f"({differ}); grade both again, so that all answers are graded alike",
                stacklevel=3,
            )


def _differences(
    a: Run, b: Run, values_a: Values, values_b: Values, seed: int
) -> list[Difference]:
    """b less a, where both have the measure and it means the same."""
    names = [ACCURACY, *(m for m in values_a if m.startswith(("pass@", MAJORITY)))]
    both = [name for name in names if name in values_a and name in values_b]
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


Split = Mapping[str, tuple[Float[np.ndarray, "_"], Bool[np.ndarray, "P"]]]
"""Measure -> its values at the problems of a part, and which problems those are."""


def _split(run: Run, solved: Bool[np.ndarray, "P"], baseline: str) -> Split:
    """Accuracy of the odd answers, on both parts of the problems that have problems."""
    if run.n == 1:
        return {}
    odd = run.correct[:, 1::2].mean(axis=1)
    parts = {f"{SOLVED} {baseline}": solved, f"{UNSOLVED} {baseline}": ~solved}
    return {name: (odd[mask], mask) for name, mask in parts.items() if mask.any()}


def _rates(
    split: Split, groups: Mapping[str, Sequence[str]], seed: int
) -> dict[str, Interval]:
    return {
        name: bootstrap(values, groups=groups[name], seed=seed)
        for name, (values, _) in split.items()
        if name in groups
    }


def _within(
    a: Run,
    b: Run,
    split_a: Split,
    split_b: Split,
    groups: Mapping[str, Sequence[str]],
    seed: int,
) -> list[Difference]:
    return [
        _difference(
            a.name, b.name, name, split_a[name][0], split_b[name][0], groups[name], seed
        )
        for name in split_a
        if name in split_b
    ]
