"""Statistics of sums with intervals: of ratios, correlations and the like."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from jaxtyping import Float

from jaxmoe.evals.metrics import Interval, bootstrap


def jackknife(
    statistic: Callable[[np.ndarray], float],
    sums: Float[np.ndarray, "P *X"],
    groups: Sequence[Hashable],
    *,
    level: float = 0.95,
) -> Interval:
    """A function of the sums over all answers, with an interval over groups of these.

    With theta = f(sum of all) and theta_-i = f(sum without group i) of n, the
    pseudo-values n theta - (n - 1) theta_-i are spread as n independent estimates are:

        theta +- t s / sqrt(n),   s their deviation, t of n - 1 degrees of freedom.

    Groups may have any number of answers, and answers any number of tokens: what is
    left out is a group whole, with all that is alike in it.

    Args:
      statistic: f, of what the sums of some answers add up to; nan where it has none.
      sums: of each answer.
      groups: what group each answer belongs to, as its prompt.
      level: share of intervals that hold the truth.

    Returns:
      nan as both bounds of fewer than two groups that count; nan throughout where the
      statistic has none.

    Source: Tukey 1958, "Bias and confidence in not quite large samples"; Miller 1974,
    "The jackknife - a review".
    """
    parts: dict[Hashable, np.ndarray] = {}
    for one, group in zip(np.asarray(sums, np.float64), groups, strict=True):
        parts[group] = parts.get(group, 0.0) + one
    # What has nothing in it would only count as one more degree of freedom.
    each = [part for part in parts.values() if np.any(part)]
    nothing = float("nan")
    if not each:
        return Interval(nothing, nothing, nothing)
    whole = np.sum(each, axis=0)
    mean = float(statistic(whole))
    if len(each) < 2 or not np.isfinite(mean):
        return Interval(mean, nothing, nothing)
    left = np.array([statistic(whole - part) for part in each], np.float64)
    pseudo = len(each) * mean - (len(each) - 1) * left
    if not np.isfinite(pseudo).all():
        return Interval(mean, nothing, nothing)
    found = bootstrap(pseudo - pseudo.mean(), ends=None, level=level)
    return Interval(mean, mean + found.low, mean + found.high)
