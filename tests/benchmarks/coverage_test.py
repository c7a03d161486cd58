"""Whether intervals hold the true mean as often as they say."""

import numpy as np
import pytest

from jaxmoe.benchmarks import coverage
from jaxmoe.benchmarks.coverage import (
    LEAST,
    SPREADS,
    Cell,
    coverage_of,
    ks_of,
    sweep,
)


@pytest.mark.parametrize("problems", [20, 100])
@pytest.mark.parametrize("spread", SPREADS)
def test_intervals_hold_the_true_mean(problems, spread):
    """A percentile bootstrap holds 0.97 in 56 of 100 cases at 30 problems."""
    for means in [(0.02,), (0.5,), (0.97,), (0.05, 0.02), (0.98, 0.7)]:
        for samples in (1, 64):
            for k in ks_of(samples):
                cell = Cell(problems, samples, k, spread, means)
                found = coverage_of(cell, trials=400)
                assert found.share >= LEAST - 3 * found.error, found


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("means", [(0.1,), (0.7,), (0.2, 0.4), (0.8, 0.1)])
@pytest.mark.parametrize("k", [1, 3])
def test_what_is_drawn_has_the_mean_that_is_said(spread, means, k):
    """Intervals would be held against another truth."""
    shape, samples = (2000, 50), 4
    generator = np.random.default_rng(0)
    rates = coverage._rates(spread, means, shape, generator)
    values = [
        coverage._pass_at(generator.binomial(samples, rate), samples, k)
        for rate in rates
    ]
    differences = values[0] - sum(values[1:])
    error = differences.std() / np.sqrt(differences.size)
    true = coverage._truth(spread, means, k)
    assert differences.mean() == pytest.approx(true, abs=4 * error)


def test_more_samples_narrow_intervals_where_they_tell_more():
    """Room at the ends would drown what many samples say."""
    one, many = (
        coverage_of(Cell(100, n, 1, "alike", (0.5,)), trials=20) for n in (1, 64)
    )
    assert many.width < 0.4 * one.width
    assert one.width < 1.1 * one.nominal


def test_what_may_be_too_low_is_looked_at_again(monkeypatch):
    """The lowest of thousands of shares would be called too low, or let through."""
    monkeypatch.setattr(coverage, "SAMPLES", (1,))
    monkeypatch.setattr(coverage, "MEANS", (0.5,))
    monkeypatch.setattr(coverage, "PAIRS", ())
    monkeypatch.setattr(coverage, "SPREADS", ("alike",))
    monkeypatch.setattr(coverage, "LEAST", 0.999)
    (found,) = sweep(10, problems=[20])
    assert found.trials == 10 * coverage._AGAIN


@pytest.mark.slow
def test_intervals_hold_the_true_mean_everywhere():
    """The claim of the docs, over all means, sizes, spreads and k."""
    low = [c for c in sweep(trials=400) if c.share < LEAST - 3 * c.error]
    assert low == []
