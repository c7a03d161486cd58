"""Whether two runs over the same problems differ by more than chance."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Shaped

_ENUMERATED = 20
"""Groups whose sign changes are all counted: 2^19 sums, as a sum and its mirror
image are equally large."""

_DENOMINATORS = 1024
"""Differences are taken for multiples of 1 / q for the first q up to here that fits."""

_LATTICE_STEPS = 1 << 28
"""Additions that the exact distribution of multiples of 1 / q may take: a second."""

_EXACT_INTEGERS = 2.0**53
"""Larger floats are not exact, and every one of them is a whole number."""

_CHUNK = 1 << 20
"""Random signs held at once, 8 MiB."""

_ROUNDING = 1e-9
"""Sums this share of all differences apart are equal: they depend on order."""


@dataclass(frozen=True)
class Significance:
    """How often chance alone would show at least the difference that was found.

    exact: whether all sign changes were counted; drawn at random otherwise.
    """

    p_value: float
    exact: bool


def permutation_test(
    a: Shaped[np.ndarray, "P"],
    b: Shaped[np.ndarray, "P"],
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Significance:
    """Two-sided paired sign-flip test of the mean of a - b over problems.

    If a and b were alike, the difference of each group might as well have the other
    sign. The p-value is the share of all sign changes whose mean is at least as far
    from 0 as the one found. It is exact where the differences of all groups are
    multiples of one 1 / q (accuracies over n answers are), or at most 20 groups have a
    difference. Else it is drawn: (count + 1) / (resamples + 1), never below
    1 / (resamples + 1).

    Args:
      a, b: one finite number, or True and False, for each problem, in one order.
      groups: what group each problem belongs to; whole groups change sign. None: every
        problem for itself.
      resamples: sign changes drawn where they cannot all be counted.
      seed: of NumPy's generator.

    Raises:
      ValueError: lengths that differ, no problems, a value that is not finite, or no
        resamples.

    Source: Fisher 1935, "The Design of Experiments", section 21; for the drawn p-value
    Phipson and Smyth 2010 (arXiv 1603.05766), equation 2.
    """
    if resamples < 1:
        raise ValueError(
            f"resamples must be at least 1, found {resamples}; pass for example 10_000"
        )
    sums = _group_differences(a, b, groups)
    slack = _ROUNDING * float(np.abs(sums).sum())
    sums = sums[np.abs(sums) > slack]
    steps = _as_multiples(sums)
    if steps is not None:
        return Significance(_lattice_tail(steps), True)
    least = abs(float(sums.sum())) - slack
    if len(sums) <= _ENUMERATED:
        return Significance(_enumerated_tail(sums, least), True)
    count = _drawn_tail(sums, least, resamples, np.random.default_rng(seed))
    return Significance((count + 1) / (resamples + 1), False)


def holm(p_values: Sequence[float]) -> Float[np.ndarray, "M"]:
    """p-values adjusted for M comparisons, in the order given.

    The i-th smallest (i = 0, 1, ...) times M - i, at least as large as those before it
    and at most 1. To reject where the result is <= alpha keeps the chance of any false
    rejection at alpha, however the comparisons depend on one another.

    Raises:
      ValueError: a p-value that is not in 0..1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p = np.asarray(p_values, np.float64).reshape(-1)
    if not ((p >= 0) & (p <= 1)).all():
        wrong = float(p[~((p >= 0) & (p <= 1))][0])
        raise ValueError(
            f"p-values must be in 0..1, found {wrong}; leave out what has none"
        )
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def _check_lengths(a: np.ndarray, b: np.ndarray) -> None:
    if len(a) != len(b):
        raise ValueError(
            f"a and b must hold the same problems, found {len(a)} and {len(b)}; keep "
            "those that are in both, in one order"
        )


def _group_differences(
    a: Shaped[np.ndarray, "P"],
    b: Shaped[np.ndarray, "P"],
    groups: Sequence[Hashable] | None,
) -> Float[np.ndarray, "G"]:
    """Sum of a - b in each group."""
    _check_lengths(a, b)
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if not difference.size or not np.isfinite(difference).all():
        found = "a value that is not finite" if difference.size else "none"
        raise ValueError(
            f"a and b must be one finite number for each problem, found {found}; leave "
            "out problems that were not run"
        )
    if groups is None:
        return difference
    if len(groups) != len(difference):
        raise ValueError(
            f"groups must name the group of each problem, found {len(groups)} for "
            f"{len(difference)} problems; pass one for each"
        )
    numbers: dict[Hashable, int] = {}
    index = [numbers.setdefault(group, len(numbers)) for group in groups]
    return np.bincount(index, difference)


def _as_multiples(sums: Float[np.ndarray, "G"]) -> Integer[np.ndarray, "G"] | None:
    """How many times one common number each sum, none of them 0, is.

    None where there is no such number, or where the exact distribution of their signed
    sums would take too long.
    """
    for q in range(1, _DENOMINATORS + 1):
        steps = np.rint(sums * q)
        if (steps == 0).any() or (np.abs(sums * q - steps) > _ROUNDING * q).any():
            continue
        if np.abs(steps).sum() > _EXACT_INTEGERS:
            return None
        whole = steps.astype(np.int64)
        whole //= max(int(np.gcd.reduce(whole)), 1)
        few = int(np.abs(whole).sum()) * len(whole) <= _LATTICE_STEPS
        return whole if few else None
    return None


def _lattice_tail(steps: Integer[np.ndarray, "G"]) -> float:
    """P(|sum of +-steps| >= |sum of steps|), by the distribution step by step."""
    sizes = np.abs(steps)
    total = int(sizes.sum())
    # Entry s is the probability that the sizes with sign + sum to s.
    chance = np.zeros(total + 1)
    chance[0], reach = 1.0, 0
    for size in sizes.tolist():
        half = chance[: reach + 1] / 2
        chance[: reach + 1] = half
        chance[size : reach + size + 1] += half
        reach += size
    far = np.abs(2 * np.arange(total + 1) - total) >= abs(int(steps.sum()))
    return min(1.0, float(chance[far].sum()))


def _enumerated_tail(sums: Float[np.ndarray, "G"], least: float) -> float:
    """The share of all sign changes whose sum is at least `least` from 0."""
    sums = np.abs(sums)
    totals = sums[:1]  # its sign may stay: the mirror image of a sum is as large
    for value in sums[1:]:
        totals = np.concatenate([totals + value, totals - value])
    return float(np.mean(np.abs(totals) >= least))


def _drawn_tail(
    sums: Float[np.ndarray, "G"],
    least: float,
    resamples: int,
    generator: np.random.Generator,
) -> int:
    """How many of `resamples` random sign changes have such a sum."""
    sums, count = np.abs(sums), 0
    chunk = max(1, _CHUNK // len(sums))
    for start in range(0, resamples, chunk):
        shape = (min(chunk, resamples - start), len(sums))
        positive = generator.integers(0, 2, shape, np.int8) @ sums
        count += int(np.sum(np.abs(2 * positive - sums.sum()) >= least))
    return count
