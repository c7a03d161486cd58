"""Whether intervals hold the true mean as often as they say."""

import pytest

from jaxmoe.benchmarks.coverage import (
    LEAST,
    MEANS,
    PROBLEMS,
    SPREADS,
    coverage_of,
    sweep,
)

# At the edges, in the middle, and differences that are one-sided or large.
CHOSEN = [(0.02,), (0.5,), (0.97,), (0.05, 0.02), (0.98, 0.7), (0.5, 0.5)]


@pytest.mark.parametrize("problems", [20, 30, 100])
@pytest.mark.parametrize("means", CHOSEN)
def test_intervals_hold_the_true_mean(problems, means):
    """A percentile bootstrap holds 0.97 in 56 of 100 cases at 30 problems."""
    found = [
        coverage_of(means, problems, samples, spread, trials=100, resamples=200)
        for samples, spread in [(1, "alike"), (64, "beta"), (64, "all or nothing")]
    ]
    assert min(c.share for c in found) >= LEAST - 3 * found[0].error


def test_more_samples_narrow_intervals_where_they_tell_more():
    """Room at the ends would drown what many samples say."""
    one, many = (
        coverage_of((0.5,), 100, n, "alike", trials=20, resamples=200).width
        for n in (1, 64)
    )
    assert many < 0.4 * one


@pytest.mark.slow
def test_intervals_hold_the_true_mean_everywhere():
    """The claim of `bootstrap`, over all means, sizes and spreads."""
    found = list(sweep(trials=200))
    assert {c.problems for c in found} == set(PROBLEMS)
    assert {c.spread for c in found} == set(SPREADS)
    assert {c.means for c in found} >= {(mean,) for mean in MEANS}
    # The lowest of some hundred shares is four standard errors too low by chance.
    assert min(c.share for c in found) >= LEAST - 4 * found[0].error
