"""Intervals of ratios by the jackknife, against what is known of them."""

import numpy as np
import pytest

from jaxmoe.analysis.jackknife import jackknife
from jaxmoe.evals.metrics import bootstrap


def _ratio(sums):
    return sums[0] / sums[1] if sums[1] else float("nan")


def test_of_equal_sizes_it_is_the_interval_of_a_mean():
    """It would be wider or narrower than Student's."""
    values = np.random.default_rng(0).normal(3.0, 2.0, 40)
    found = jackknife(_ratio, np.stack([values, np.ones(40)], axis=1), range(40))
    plain = bootstrap(values, ends=None)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high))


def test_groups_are_left_out_whole():
    """Answers to one prompt, which are alike, would count as independent."""
    values = np.repeat(np.random.default_rng(1).normal(size=10), 8)
    sums = np.stack([values, np.ones(80)], axis=1)
    whole = jackknife(_ratio, sums, np.repeat(np.arange(10), 8).tolist())
    plain = bootstrap(values[::8], ends=None)
    assert (whole.low, whole.high) == pytest.approx((plain.low, plain.high))


def test_what_has_no_interval_says_so():
    """One prompt would seem to say all, with an interval of no width."""
    one = jackknife(_ratio, np.array([[2.0, 4.0], [1.0, 2.0]]), ["a", "a"])
    assert one.mean == 0.5 and np.isnan([one.low, one.high]).all()
    nothing = jackknife(_ratio, np.zeros((3, 2)), "abc")
    assert np.isnan([nothing.mean, nothing.low, nothing.high]).all()
