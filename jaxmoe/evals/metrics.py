"""Numbers of an evaluation, and how far each may be off.

A problem is the unit throughout: samples of one problem are alike, so resampling them
as if they were independent would make every interval too narrow.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Integer, Shaped

_CHUNK = 1 << 20
"""Draws held at once by the bootstrap: 8 MiB of indices and 8 MiB of values."""

Added = tuple[float, int]
"""Made-up problems at either end of the scale: for an interval's middle, its width."""

OF_ONE: Added = (1.5, 2)
"""For a mean. With 1 or 2 for the middle, coverage at level 0.95 falls to 0.929 for 20
problems that are right or wrong, or to 0.92 for 500 problems of a mean of 0.02."""

OF_DIFFERENCE: Added = (1, 1)
"""For a difference: no wider than it must be to hold one that few problems make."""


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
    ends: tuple[float, float] | None = (0.0, 1.0),
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean over problems with an interval that does not vanish at either end.

    Where all 30 of 30 problems are right, resampling them says that the mean is 1 for
    certain. So problems are made up that lie at the ends of the scale, as Agresti and
    Coull do for proportions: with P problems (or groups), 1.5 at either end for the
    middle of the interval, two for its width,

        middle +- t * s,   middle = (sum + 1.5 (low end + high end)) / (P + 3),

    s the standard deviation of the mean of P + 4 problems drawn with replacement from
    these, and t the quantile of Student's distribution with P - 1 degrees of freedom.
    Where all groups are of one size, s is known without drawing. The bounds stay within
    the ends, and the mean within the bounds. `jaxmoe.benchmarks.coverage` measures how
    often intervals at level 0.95 hold the true mean.

    Args:
      values: one finite number, or True and False, for each problem.
      groups: what group each problem belongs to, where problems of one group are
        alike; whole groups are then drawn. None: every problem for itself.
      ends: the smallest and the largest value that there can be. None where there are
        none: no problems are made up, and equal values give no width.
      level: share of intervals that hold the true mean.
      resamples: means drawn, where groups differ in size.
      seed: of NumPy's generator; equal seeds give equal intervals.

    Raises:
      ValueError: no values, one that is not finite or beyond the ends, a level not
        between 0 and 1, or no resamples.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife"; Agresti and
    Coull 1998, "Approximate is better than exact"; for differences Bonett and Price
    2012, "Adjusted Wald confidence interval for a difference of binomial proportions
    based on paired data".
    """
    options = {"groups": groups, "ends": ends, "level": level}
    return _interval(values, OF_ONE, **options, resamples=resamples, seed=seed)


def _interval(
    values: Shaped[np.ndarray, "P"],
    added: Added,
    *,
    groups: Sequence[Hashable] | None,
    ends: tuple[float, float] | None,
    level: float,
    resamples: int,
    seed: int,
) -> Interval:
    values = _checked(np.asarray(values, np.float64), ends)
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(
            "level must be between 0 and 1 and resamples at least 1, found "
            f"{level} and {resamples}; pass for example level=0.95, resamples=10_000"
        )
    sums, counts = _totals(values, groups)
    if (counts == counts[0]).all():
        low, high = bounds((sums / counts)[None], added, ends=ends, level=level)
        # The sums of groups may round to another mean.
        mean = float(values.mean())
        return Interval(mean, min(float(low[0]), mean), max(float(high[0]), mean))
    size = counts.mean()
    made_up = np.array(ends or (), np.float64)
    more = size * added[0]
    middle = (sums.sum() + more * made_up.sum()) / (counts.sum() + more * len(made_up))
    extreme = np.repeat(made_up, added[1])
    means = _resampled_means(
        np.append(sums, size * extreme),
        np.append(counts, np.full(len(extreme), size)),
        resamples,
        np.random.default_rng(seed),
    )
    total = len(sums) + len(extreme)
    deviation = means.std() * np.sqrt(total / (total - 1))
    half = _student(level, len(sums) - 1) * deviation
    mean, middle, half = np.array([[values.mean()], [middle], [half]])
    low, high = _within(ends, mean, middle, half)
    return Interval(float(mean[0]), float(low[0]), float(high[0]))


def bounds(
    values: Float[np.ndarray, "S P"],
    added: Added = OF_ONE,
    *,
    ends: tuple[float, float] | None = (0.0, 1.0),
    level: float = 0.95,
) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """Low and high bounds of `bootstrap` for each of S sets of P problems.

    Args:
      values: finite and within the ends; problems are not grouped.
      added: `OF_ONE`, or `OF_DIFFERENCE` for `paired_difference`.
      ends, level: as in `bootstrap`.
    """
    problems, total = values.shape[-1], values.sum(axis=-1)
    made_up = np.array(ends or (), np.float64)
    middle = (total + added[0] * made_up.sum()) / (problems + added[0] * len(made_up))
    extreme = np.repeat(made_up, added[1])
    size = problems + len(extreme)
    mean = (total + extreme.sum())[..., None] / size
    squares = ((values - mean) ** 2).sum(axis=-1)
    squares += ((extreme - mean) ** 2).sum(axis=-1)
    deviation = np.sqrt(squares / size / max(size - 1, 1))
    half = _student(level, problems - 1) * deviation
    return _within(ends, total / problems, middle, half)


def _within(
    ends: tuple[float, float] | None,
    mean: Float[np.ndarray, "S"],
    middle: Float[np.ndarray, "S"],
    half: Float[np.ndarray, "S"],
) -> tuple[Float[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """middle +- half: within the ends, and such that the mean is between them."""
    least, most = ends or (-np.inf, np.inf)
    low = np.minimum(np.maximum(middle - half, least), mean)
    return low, np.maximum(np.minimum(middle + half, most), mean)


def paired_difference(
    a: Shaped[np.ndarray, "P"],
    b: Shaped[np.ndarray, "P"],
    *,
    groups: Sequence[Hashable] | None = None,
    ends: tuple[float, float] | None = (0.0, 1.0),
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of a - b over the same problems with its interval, see `bootstrap`.

    How hard a problem is moves a and b alike and cancels in a - b, so this tells far
    smaller differences apart than two intervals side by side. One problem is made up at
    either end, from b alone being right to a alone. So an interval at level 0.95
    reaches at least 2.8 / P to either side: a difference that one problem in P makes is
    in one of three sets of P problems not to be seen, however many the answers.

    Args:
      a, b: values of the same problems in the same order.
      ends: between which a and b can be.
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
    return _interval(
        difference,
        OF_DIFFERENCE,
        groups=groups,
        ends=None if ends is None else (ends[0] - ends[1], ends[1] - ends[0]),
        level=level,
        resamples=resamples,
        seed=seed,
    )


def _student(level: float, degrees: int) -> float:
    """The quantile (1 + level) / 2 of Student's distribution.

    By its expansion around the normal one (Abramowitz and Stegun 1964, 26.7.5): off by
    less than 1e-4 from 10 degrees of freedom on, too small below 4.
    """
    z, degrees = NormalDist().inv_cdf((1 + level) / 2), max(degrees, 1)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / degrees**i for i, term in enumerate(terms, start=1))


_ROUNDING = 1e-9
"""Of the scale: what sums of shares may pass its ends by."""


def _checked(values: np.ndarray, ends: tuple[float, float] | None) -> np.ndarray:
    """`values` between the ends, that which rounding has moved past them put back."""
    if not values.size or not np.isfinite(values).all():
        found = "a value that is not finite" if values.size else "none"
        raise ValueError(
            f"values must be one finite number for each problem, found {found}; leave "
            "out problems that were not run"
        )
    if ends is None:
        return values
    low, high = ends
    slack = _ROUNDING * (high - low)
    if low >= high or values.min() < low - slack or values.max() > high + slack:
        raise ValueError(
            f"values must lie between the ends {low} and {high}, found "
            f"{values.min()} to {values.max()}; pass the `ends` of the scale, or None "
            "where it has none"
        )
    return values.clip(low, high)


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
