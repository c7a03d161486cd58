"""Pass@k by enumeration, and bootstrap intervals against exact distributions."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from jaxmoe.evals import metrics
from jaxmoe.evals.metrics import (
    Interval,
    bootstrap,
    paired_difference,
    pass_at,
)


def _binomial(n: int, p: float) -> np.ndarray:
    """Probability of 0..n successes."""
    return np.array([math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)])


# -- pass@k ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7])
def test_pass_at_is_the_share_of_subsets_with_a_right_answer(n):
    """The formula would count other than all sets of k out of n answers."""
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(range(n), k))
        # Answers 0..c-1 are right, so a set passes if its first answer is.
        expected = [
            sum(subset[0] < c for subset in subsets) / len(subsets)
            for c in range(n + 1)
        ]
        found = pass_at(np.arange(n + 1), n, k)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_pass_at_is_unbiased(k):
    """Its mean over all that could be sampled must be 1 - (1 - p)^k for any p."""
    for p in (0.02, 0.3, 0.9):
        mean = _binomial(20, p) @ pass_at(np.arange(21), 20, k)
        assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_pass_at_holds_for_many_answers():
    """Binomial coefficients of this size overflow a float: C(4000, 2000) > 1e1200."""
    found = pass_at(np.array([0, 1, 2, 2000, 2001, 4000]), 4000, 2000)
    half_twice = 0.5 * 1999 / 3999
    np.testing.assert_allclose(found, [0, 0.5, 1 - half_twice, 1, 1, 1], rtol=1e-12)
    assert found[0] == 0
    assert (found[-2:] == 1).all()


@pytest.mark.parametrize("n, k", [(4, 0), (4, 5), (0, 0), (4, -1)])
def test_pass_at_refuses_more_tries_than_answers(n, k):
    """Pass@8 of four answers would be shown as if it had been measured."""
    with pytest.raises(ValueError, match=rf"1\.\.n with n = {n}, found {k}"):
        pass_at(np.array([0]), n, k)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_pass_at_refuses_impossible_counts(wrong):
    """An index past the table, or a negative one, would read another problem's row."""
    with pytest.raises(ValueError, match=f"found {wrong} for problem 2"):
        pass_at(np.array([0, 4, wrong]), 4, 2)


# -- intervals ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "interval, text",
    [
        (Interval(0.412, 0.389, 0.436), "41.2 % [38.9, 43.6]"),
        (Interval(-0.0001, -0.02, 0.0199), "0.0 % [-2.0, 2.0]"),
        (Interval(1.0, 1.0, 1.0), "100.0 % [100.0, 100.0]"),
    ],
)
def test_interval_as_text(interval, text):
    """A report would show fractions, or a zero with a sign."""
    assert str(interval) == text


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_bootstrap_of_zeros_and_ones_is_that_of_proportions(level):
    """1.5 made-up problems at either end for the middle, two for the width."""
    found = bootstrap(np.arange(100) < 30, level=level, resamples=40_000)
    middle, share = 31.5 / 103, 32 / 104
    # t at 99 degrees of freedom, from tables.
    t = {0.8: 1.2902, 0.95: 1.9842, 0.99: 2.6264}[level]
    half = t * math.sqrt(share * (1 - share) / 103)
    assert found.mean == pytest.approx(0.3)
    # The quantile by its expansion is off by less than 1e-4.
    assert found.low == pytest.approx(middle - half, abs=1e-5)
    assert found.high == pytest.approx(middle + half, abs=1e-5)


@pytest.mark.parametrize("problems", [20, 21, 24, 30, 36, 48, 56, 75, 100, 200, 500])
def test_right_or_wrong_answers_are_covered(problems):
    """Exactly: chances of 0..P right answers, at all means from 0.02 to 0.98."""
    right, means = np.arange(problems + 1), np.linspace(0.02, 0.98, 481)
    low, high = metrics.bounds((np.arange(problems) < right[:, None]).astype(float))
    logs = np.array([math.log(math.comb(problems, c)) for c in right])[:, None]
    logs = logs + right[:, None] * np.log(means)
    chances = np.exp(logs + (problems - right)[:, None] * np.log1p(-means))
    held = (low[:, None] <= means) & (means <= high[:, None])
    assert (chances * held).sum(axis=0).min() >= 0.93


def test_bootstrap_covers_the_true_mean_as_often_as_it_says():
    """Intervals would be too narrow or too wide: 90 % of them should hold the mean."""
    generator = np.random.default_rng(0)
    tables = generator.exponential(size=(400, 100))
    intervals = [bootstrap(row, level=0.9, resamples=400, ends=None) for row in tables]
    covered = np.mean([found.low <= 1 <= found.high for found in intervals])
    # Three standard errors, and 2 % that symmetric intervals of 100 skewed values lack.
    error = 3 * math.sqrt(0.9 * 0.1 / len(tables))
    assert 0.9 - 0.02 - error < covered < 0.9 + error


@pytest.mark.parametrize("problems", [1, 2, 20, 30, 500])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_bootstrap_leaves_room_at_the_ends(problems, value):
    """30 of 30 right would say that nothing can go wrong."""
    found = bootstrap(np.full(problems, value))
    assert found.mean == value and 0 <= found.low <= value <= found.high <= 1
    # With a chance of 5 % none of P problems differs at a rate of about 3 / P.
    room = max(value - found.low, found.high - value)
    assert room > 0.9 * (1 - 0.05 ** (1 / problems))


@pytest.mark.parametrize("problems", [20, 500])
@pytest.mark.parametrize("value", [0.02, 0.5, 0.9])
def test_bootstrap_of_equal_shares_holds_them(problems, value):
    """The middle would have moved away from the mean by more than the width."""
    found = bootstrap(np.full(problems, value))
    assert found.low < value < found.high


def test_difference_of_equal_runs_leaves_room():
    """Two runs that solve the same 30 of 30 would be equal for certain."""
    found = paired_difference(np.ones(30), np.ones(30))
    assert found.low < -0.05 and found.high > 0.05 and found.mean == 0
    assert found.low == pytest.approx(-found.high)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (5.0, 9.0), (1.0, 1.0)])
def test_bootstrap_refuses_values_beyond_the_ends(ends):
    """Counts of answers would be taken for shares."""
    with pytest.raises(ValueError, match=str(ends[0])):
        bootstrap(np.array([0.0, 3.0]), ends=ends)
    assert bootstrap(np.array([0.0, 3.0]), ends=(0.0, 8.0)).mean == 1.5


UNEQUAL = ["first", *range(49)]
"""Groups of 50 problems that differ in size: the first two are of one."""
UNEQUAL[1] = "first"


def test_bootstrap_follows_its_seed():
    """A table could not be made again, or more seeds would be no check of it."""
    values = np.random.default_rng(1).random(50)
    first, again, other = (bootstrap(values, groups=UNEQUAL, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_bootstrap_draws_as_many_means_as_asked():
    """Of one mean all quantiles are the same, of two they are not."""
    values = np.random.default_rng(1).random(50)
    one, two = (
        bootstrap(values, groups=UNEQUAL, resamples=r, ends=None) for r in (1, 2)
    )
    assert one.low == one.high
    assert two.low < two.high


def test_bootstrap_fills_every_chunk(monkeypatch):
    """A chunk left out would leave means that nobody drew."""
    monkeypatch.setattr(metrics, "_CHUNK", 130)
    for resamples in (1, 2, 3, 4, 10):
        options = {"groups": UNEQUAL, "resamples": resamples, "ends": None}
        assert bootstrap(np.full(50, 0.25), **options) == Interval(0.25, 0.25, 0.25)


def test_what_is_drawn_is_what_is_known():
    """Groups of two sizes would have other intervals than those of one."""
    values = np.random.default_rng(1).random(50) < 0.2
    known = bootstrap(values)
    groups = [*range(48), 48, 48]
    drawn = bootstrap(values, groups=groups, resamples=40_000)
    assert drawn.low == pytest.approx(known.low, abs=0.01)
    assert drawn.high == pytest.approx(known.high, abs=0.01)


def test_bounds_are_those_of_each_set():
    """The simulation would measure other intervals than those that are shown."""
    sets = np.random.default_rng(0).random((5, 30)) ** 3
    low, high = metrics.bounds(sets)
    apart, far = metrics.bounds(sets, metrics.OF_DIFFERENCE, ends=(-1.0, 1.0))
    for i, values in enumerate(sets):
        found = bootstrap(values)
        assert (low[i], high[i]) == pytest.approx((found.low, found.high))
        found = paired_difference(values, np.zeros(30))
        assert (apart[i], far[i]) == pytest.approx((found.low, found.high))


def test_bootstrap_is_bounded_in_memory():
    """All resamples at once would be 320 MB here, and far more in earnest."""
    values = np.random.default_rng(0).random(10_000)
    groups = [*range(9_999), 9_998]
    tracemalloc.start()
    try:
        bootstrap(values, groups=groups, resamples=2000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize(
    "values, found",
    [([], "found none"), ([0.5, np.nan], "not finite"), ([np.inf], "not finite")],
)
def test_bootstrap_refuses_what_has_no_mean(values, found):
    """One problem that failed would turn a whole table into nan."""
    with pytest.raises(ValueError, match=found):
        bootstrap(np.array(values))


@pytest.mark.parametrize("option", [{"level": 1.0}, {"level": 95}, {"resamples": 0}])
def test_bootstrap_refuses_options_without_meaning(option):
    """level=95 would be the quantile of something that does not exist."""
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        bootstrap(np.array([0.0, 1.0]), **option)


# -- differences -------------------------------------------------------------------


@pytest.fixture
def correlated():
    """Two runs over problems of very different difficulty; the first 2 % better."""
    generator = np.random.default_rng(2)
    hard = generator.random(300)
    noise = generator.normal(scale=0.05, size=(2, 300))
    return hard + 0.02 + noise[0], hard + noise[1]


def test_paired_difference_is_narrower_than_unpaired(correlated):
    """Problems would be drawn apart for a and b, and real differences would drown."""
    a, b = correlated
    found = paired_difference(a, b, ends=None)
    paired = found.high - found.low
    apart = math.hypot(
        *(i.high - i.low for i in (bootstrap(x, ends=None) for x in (a, b)))
    )
    assert found.mean == pytest.approx(np.mean(a - b))
    # The noise alone is left: 2 * 1.96 standard errors of a difference of two.
    assert paired == pytest.approx(2 * 1.96 * 0.05 * math.sqrt(2 / 300), rel=0.15)
    assert paired < apart / 3


def test_paired_difference_has_a_sign(correlated):
    """The better run would be called the worse."""
    a, b = correlated
    forth, back = (paired_difference(*ab, ends=None) for ab in ((a, b), (b, a)))
    assert back.mean == pytest.approx(-forth.mean)
    assert back.low == pytest.approx(-forth.high)


def test_paired_difference_of_right_and_wrong():
    """Booleans have no minus, and unsigned integers a wrong one."""
    a, b = np.array([True, False, False]), np.array([True, True, False])
    assert paired_difference(a, b).mean == pytest.approx(-1 / 3)
    unsigned = paired_difference(a.astype(np.uint8), b.astype(np.uint8))
    assert unsigned == paired_difference(a, b)


def test_paired_difference_passes_its_options_on(correlated):
    """A table at 99 % would hold intervals at 95 %."""
    a, b = correlated
    options = {"level": 0.99, "resamples": 500, "seed": 3, "ends": None}
    assert paired_difference(a, b, **options) == bootstrap(a - b, **options)


def test_paired_difference_refuses_other_problems(untyped):
    """NumPy would stretch one value over all problems, or fail without a reason."""
    with pytest.raises(ValueError, match="same problems, found 3 and 1"):
        paired_difference(np.zeros(3), np.zeros(1))


# -- groups --------------------------------------------------------------------------


def test_groups_of_one_change_nothing():
    """A mean would be weighted by something else than problems."""
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values, groups=range(50)) == bootstrap(values)


def test_problems_that_are_alike_count_as_one():
    """Four copies of a problem would make the interval half as wide."""
    values = np.random.default_rng(0).random(60)
    once = bootstrap(values)
    copies = bootstrap(
        np.repeat(values, 4), groups=np.repeat(np.arange(60), 4).tolist()
    )
    assert copies.mean == pytest.approx(once.mean)
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.05)
    alone = bootstrap(np.repeat(values, 4))
    assert alone.high - alone.low < 0.6 * (copies.high - copies.low)


def test_groups_of_unequal_size_keep_the_mean_over_problems():
    """Small groups would weigh as much as large ones."""
    values = np.array([1.0, 0.0, 0.0, 0.0])
    interval = bootstrap(values, groups=["a", "b", "b", "b"])
    assert interval.mean == 0.25
    assert (interval.low, interval.high) == (0.0, 1.0)
    a = paired_difference(values, np.zeros(4), groups=["a", "b", "b", "b"], ends=None)
    b = bootstrap(values, groups=["a", "b", "b", "b"], ends=None)
    assert a == b


def test_groups_must_match_the_problems():
    """Problems would be resampled with those of another group."""
    with pytest.raises(ValueError, match="found 2 for 3 problems"):
        bootstrap(np.ones(3), groups=["a", "b"])


def test_rounding_past_an_end_is_no_error():
    """A share of votes summed to 1 + 2e-16 ended an evaluation."""
    above = np.array([1.0, 1 + 2e-16, 1 / 3 * 3, 0.5, -1e-17])
    assert above.max() > 1 or above.min() < 0
    found = bootstrap(above)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    with pytest.raises(ValueError, match="between the ends"):
        bootstrap(np.array([0.5, 1.001]))
