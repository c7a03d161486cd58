"""Runs side by side: what a report shows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmoe.evals.metrics import Interval


@dataclass(frozen=True)
class Curve:
    """A measure against the number of answers: intervals[i] is that at ks[i]."""

    ks: tuple[int, ...]
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class RunSummary:
    """One run.

    about: its manifest (task, policy, sampler, n, seed, checkpoint, versions, ...).
    measures: name -> interval over problems, fractions ("accuracy", "pass@8",
    "majority vote of n", "best of n, mean log-probability", ...). numbers: name ->
    plain number ("mean tokens", "answers cut off", "distinct answers", ...). curves:
    name -> curve ("pass@k", "majority@k"). right: right answers to each problem, of n.
    """

    name: str
    about: Mapping[str, Any]
    n: int
    measures: Mapping[str, Interval]
    numbers: Mapping[str, float]
    curves: Mapping[str, Curve]
    right: tuple[int, ...]


@dataclass(frozen=True)
class Difference:
    """Run b's measure less run a's over the same problems, fractions.

    p_value: of a paired permutation test. exact: whether all sign changes were counted.
    adjusted: the p-value by Holm's method among all differences of the comparison; NaN
    where it was not worked out.
    """

    a: str
    b: str
    measure: str
    interval: Interval
    p_value: float
    exact: bool
    adjusted: float = math.nan


@dataclass(frozen=True)
class Answer:
    """One answer to be read.

    text: its beginning and end where it is long. read: what the grader read out of it;
    None: nothing. cut: whether it ended at the limit of tokens. tokens: its length.
    """

    sample: int
    text: str
    read: str | None
    right: bool
    cut: bool
    tokens: int


@dataclass(frozen=True)
class Example:
    """A problem with some of its answers.

    solved_by: the only run with a right answer, where there is just one among several.
    right: run -> right answers, of all. answers: run -> those to be read.
    """

    problem: str
    prompt: str
    reference: str
    solved_by: str | None
    right: Mapping[str, int]
    answers: Mapping[str, tuple[Answer, ...]]


@dataclass(frozen=True)
class Comparison:
    """All that a report of one or more runs shows; the first run is the baseline.

    problems: ids, in the order of every run's `right`. groups: how many groups they
    fall into. examples: problems to be read, those that one run solved alone first.
    """

    task: str
    problems: tuple[str, ...]
    groups: int
    runs: tuple[RunSummary, ...]
    differences: tuple[Difference, ...]
    examples: tuple[Example, ...]
