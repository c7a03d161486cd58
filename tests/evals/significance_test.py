"""Permutation tests against all sign changes, and p-values worked by hand."""

import itertools
import math

import numpy as np
import pytest

from jaxmoe.evals import significance
from jaxmoe.evals.significance import Significance, holm, permutation_test


def _tail(differences) -> float:
    """The share of all sign changes at least as far from 0, spelled out."""
    found = abs(math.fsum(differences)) - 1e-9
    signs = itertools.product([-1, 1], repeat=len(differences))
    return float(np.mean([abs(np.dot(sign, differences)) >= found for sign in signs]))


def _mcnemar(a, b) -> float:
    """McNemar's exact p-value, from the problems that only one has right."""
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    m, fewer = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(m, i) for i in range(fewer + 1)) / 2**m)


# -- permutation test --------------------------------------------------------------


def test_permutation_by_hand():
    """Three wins of equal size: 2 of 8 sign changes are as far out."""
    a, b = np.array([1.0, 1.0, 1.0, 0.5]), np.array([0.5, 0.5, 0.5, 0.5])
    assert permutation_test(a, b) == Significance(0.25, True)


@pytest.mark.parametrize("lattice", [True, False])
def test_permutation_counts_all_sign_changes(lattice, monkeypatch):
    """An exact way would miss sign changes, or those equal but for rounding."""
    if not lattice:
        monkeypatch.setattr(significance, "_DENOMINATORS", 0)
    generator = np.random.default_rng(0)
    for n in (2, 3, 7, 10):
        a, b = generator.integers(0, n + 1, (2, 9)) / n
        found = permutation_test(a, b)
        assert found.exact
        assert found.p_value == pytest.approx(_tail(a - b), abs=1e-12)


def test_permutation_of_any_numbers_is_counted():
    """Differences that are multiples of nothing would be drawn, though few."""
    a, b = np.random.default_rng(1).normal(size=(2, 10))
    found = permutation_test(a, b)
    assert found.exact
    assert found.p_value == pytest.approx(_tail(a - b), abs=1e-12)


def test_permutation_of_many_right_and_wrong_is_mcnemar():
    """The distribution over hundreds of problems would drift from the binomial."""
    generator = np.random.default_rng(0)
    for gain in (0.0, 0.05, 0.2):
        a = generator.random(600) < 0.5 + gain
        b = generator.random(600) < 0.5
        found = permutation_test(a, b)
        assert found.exact
        assert found.p_value == pytest.approx(_mcnemar(a, b), rel=1e-9)


def test_permutation_drawn_is_near_all(monkeypatch):
    """Signs would not be drawn evenly; the smallest p-value would be 0."""
    a, b = np.random.default_rng(1).normal(size=(2, 12)) + [[0.6], [0.0]]
    exact = permutation_test(a, b).p_value
    assert 0.01 < exact < 0.5
    monkeypatch.setattr(significance, "_ENUMERATED", 11)
    found = permutation_test(a, b, resamples=20_000)
    assert not found.exact
    error = math.sqrt(exact * (1 - exact) / 20_000)
    assert abs(found.p_value - exact) < 4 * error
    monkeypatch.setattr(significance, "_CHUNK", 500)
    assert permutation_test(a, b, resamples=999, seed=1).p_value == pytest.approx(
        exact, abs=4 * error * math.sqrt(20)
    )
    none = permutation_test(a + 100, b, resamples=99)
    # The sign of all twelve at once has a chance of 2 in 4096.
    assert none.p_value in (0.01, 0.02, 0.03)


def test_permutation_drawn_follows_its_seed():
    """A table could not be made again, or more seeds would be no check of it."""
    a, b = np.random.default_rng(1).normal(size=(2, 60))
    found = permutation_test(a, b)
    assert not found.exact
    assert permutation_test(a, b, seed=0) == found
    assert permutation_test(a, b, seed=1) != found


def test_permutation_has_the_size_it_says():
    """Of runs that are alike, one in ten should have a p-value of 0.1 or less."""
    generator = np.random.default_rng(0)
    tables = generator.integers(0, 9, (600, 2, 30)) / 8
    p = np.array([permutation_test(a, b).p_value for a, b in tables])
    assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 600))


def test_groups_change_sign_together():
    """Four copies of a problem would count as four pieces of evidence."""
    a, b = np.array([0.5, 0.75, 1.0, 0.5]), np.array([0.0, 0.5, 0.25, 0.75])
    a4, b4 = np.repeat(a, 4), np.repeat(b, 4)
    groups = np.repeat(np.arange(4), 4).tolist()
    once = permutation_test(a, b)
    assert permutation_test(a4, b4, groups) == once
    assert permutation_test(a4, b4).p_value < once.p_value
    # x: 0.5, y: 0.25 - 0.75, z: 0.75; all but the two sign changes that sum to
    # 0.5 + 0.5 - 0.75 = 0.25 are at least 0.75 from 0.
    b[3] = 1.25
    mixed = permutation_test(a, b, ["x", "y", "z", "y"])
    assert mixed == Significance(0.75, True)
    cancelled = permutation_test(np.array([1.0, 0.0]), np.array([0.0, 1.0]), [5, 5])
    assert cancelled == Significance(1.0, True)


def test_sign_and_equality():
    """a - b would be tested on one side only, or equal runs divide by 0."""
    a, b = np.random.default_rng(0).integers(0, 5, (2, 40)) / 4
    assert permutation_test(a, b) == permutation_test(b, a)
    assert permutation_test(a, a) == Significance(1.0, True)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e6, 1e17])
def test_the_unit_changes_nothing(scale):
    """Small differences would be taken for 0, or large ones overflow."""
    a, b = np.random.default_rng(0).integers(0, 5, (2, 12)) / 4
    found = permutation_test(a * scale, b * scale)
    assert found.exact
    assert found.p_value == pytest.approx(permutation_test(a, b).p_value, abs=1e-12)


def test_a_long_distribution_is_drawn(monkeypatch):
    """A test over many problems would take minutes."""
    monkeypatch.setattr(significance, "_LATTICE_STEPS", 100)
    a, b = np.random.default_rng(0).integers(0, 65, (2, 50)) / 64
    assert not permutation_test(a, b, resamples=9).exact


@pytest.mark.parametrize(
    "a, options, message",
    [
        ([0.5, 1.0, 0.0], {}, "same problems, found 3 and 2"),
        ([0.5, np.nan], {}, "not finite"),
        ([0.5, 1.0], {"groups": [1]}, "found 1 for 2 problems"),
        ([0.5, 1.0], {"resamples": 0}, "resamples must be at least 1"),
    ],
)
def test_permutation_refuses_what_it_cannot_test(untyped, a, options, message):
    """NumPy would stretch one run over another, or nan would be significant."""
    with pytest.raises(ValueError, match=message):
        permutation_test(np.array(a), np.array([0.5, 0.5]), **options)


def test_permutation_refuses_no_problems():
    """Nothing differs from nothing with a p-value of nan."""
    with pytest.raises(ValueError, match="found none"):
        permutation_test(np.zeros(0), np.zeros(0))


# -- Holm --------------------------------------------------------------------------


def test_holm_by_hand():
    """0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.06 stays for those that would fall."""
    found = holm([0.03, 0.01, 0.04, 0.02])
    np.testing.assert_allclose(found, [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.4]), [0.9, 0.8])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    np.testing.assert_array_equal(holm([0.2]), [0.2])
    assert holm([]).shape == (0,)


def test_holm_rejects_as_the_stepwise_procedure():
    """The adjusted values would reject others than Holm's steps do."""
    generator = np.random.default_rng(0)
    for p in generator.random((200, 6)) ** 3:
        rejected = set()
        for step, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (6 - step):
                break
            rejected.add(int(index))
        assert set(np.nonzero(holm(p.tolist()) <= 0.05)[0].tolist()) == rejected


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p_value(wrong):
    """nan sorts last and would spoil all after it."""
    with pytest.raises(ValueError, match=r"must be in 0\.\.1, found"):
        holm([0.5, wrong])
