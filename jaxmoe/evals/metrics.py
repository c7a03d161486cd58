"""Numbers of an evaluation, and how far each may be off.

A problem is the unit throughout: samples of one problem are alike, so resampling them
as if they were independent would make every interval too narrow.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Shaped

_CHUNK = 1 << 20
"""Draws held at once by the bootstrap: 8 MiB of indices and 8 MiB of values."""


@dataclass(frozen=True)
class Interval:
    """A mean, and the bounds between which it lies at some level of confidence.

    All three are fractions; `str` shows them in percent, as 41.2 % [38.9, 43.6].
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        # z: a difference that rounds to 0 is shown as 0.0, not as -0.0.
        mean, low, high = (f"{100 * x:z.1f}" for x in (self.mean, self.low, self.high))
        return f"{mean} % [{low}, {high}]"


def pass_at(right: Integer[np.ndarray, "P"], n: int, k: int) -> Float[np.ndarray, "P"]:
    """Unbiased estimate of pass@k of each problem from n answers.

    With c of n answers right, the share of all sets of k of them that hold a right one:

        1 - C(n - c, k) / C(n, k)  =  1 - prod over i = n-c+1..n of (1 - k / i),

    and 1 where n - c < k: then every such set does.

    Args:
      right: c, right answers of each problem.
      n: answers of each problem.
      k: answers that one may give.

    Returns:
      Fractions, float64.

    Raises:
      ValueError: k is not in 1..n, or a count is not in 0..n.

    Source: Chen et al. 2021 (arXiv 2107.03374), equation 1 and figure 3.
    """
    if not 1 <= k <= n:
        raise ValueError(
            f"k must be in 1..n with n = {n}, found {k}; pass at most as many as were "
            "sampled"
        )
    outside = (right < 0) | (right > n)
    if outside.any():
        first = int(outside.argmax())
        raise ValueError(
            f"right must be in 0..n with n = {n}, found {right[first]} for problem "
            f"{first}; pass as n the answers sampled for each problem"
        )
    # Factors for i = n, n-1, ..., 1, so that the first c of them belong to c. The one
    # for i = k is 0, which makes every product from there on 0.
    factors = np.maximum(1 - k / np.arange(n, 0, -1), 0.0)
    all_wrong = np.cumprod(np.append(1.0, factors))
    return 1 - all_wrong[right]


def bootstrap(
    values: Shaped[np.ndarray, "P"],
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean over problems with its percentile bootstrap interval.

    Draws P problems with replacement, `resamples` times; the bounds are the quantiles
    (1 - level) / 2 and (1 + level) / 2 of the means. Where all values are equal the
    interval has no width, which does not say that the next problem's is the same.

    Args:
      values: one finite number, or True and False, for each problem.
      groups: what group each problem belongs to, where problems of one group are
        alike; whole groups are then drawn. None: every problem for itself.
      level: share of intervals that hold the true mean, where P is large.
      resamples: means drawn.
      seed: of NumPy's generator; equal seeds give equal intervals.

    Raises:
      ValueError: no values, one that is not finite, a level not between 0 and 1, or no
        resamples.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    values = np.asarray(values, np.float64)
    if not values.size or not np.isfinite(values).all():
        found = "a value that is not finite" if values.size else "none"
        raise ValueError(
            f"values must be one finite number for each problem, found {found}; leave "
            "out problems that were not run"
        )
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(
            "level must be between 0 and 1 and resamples at least 1, found "
            f"{level} and {resamples}; pass for example level=0.95, resamples=10_000"
        )
    means = _resampled_means(
        *_totals(values, groups), resamples, np.random.default_rng(seed)
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def paired_difference(
    a: Shaped[np.ndarray, "P"],
    b: Shaped[np.ndarray, "P"],
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of a - b over the same problems with its bootstrap interval.

    How hard a problem is moves a and b alike and cancels in a - b, so this tells far
    smaller differences apart than two intervals side by side.

    Args:
      a, b: values of the same problems in the same order.
      groups, level, resamples, seed: as in `bootstrap`.

    Raises:
      ValueError: the lengths differ, or what `bootstrap` raises.
    """
    if len(a) != len(b):
        raise ValueError(
            f"a and b must hold the same problems, found {len(a)} and {len(b)}; keep "
            "those that are in both, in one order"
        )
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    options = {"level": level, "resamples": resamples, "seed": seed}
    return bootstrap(difference, groups=groups, **options)


def _totals(values: np.ndarray, groups: Sequence[Hashable] | None):
    """Sum of values and number of problems in each group."""
    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise ValueError(
            f"groups must name the group of each problem, found {len(groups)} for "
            f"{len(values)} problems; pass one for each"
        )
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(group, len(numbers)) for group in groups]
    return np.bincount(index, values), np.bincount(index).astype(float)


def _resampled_means(
    sums: Float[np.ndarray, "G"],
    counts: Float[np.ndarray, "G"],
    resamples: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "R"]:
    """Means of `resamples` draws of G groups with replacement, a chunk at a time."""
    means = []
    chunk = max(1, _CHUNK // len(sums))
    for start in range(0, resamples, chunk):
        shape = (min(chunk, resamples - start), len(sums))
        drawn = generator.integers(0, len(sums), shape)
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
