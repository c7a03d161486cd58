"""Diversity of answers and of routes against pairs spelled out."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from jaxmoe.evals import diversity
from jaxmoe.evals.diversity import (
    distinct,
    entropy,
    mean_route_jaccard,
    route_jaccard,
)

ANSWERS = np.array(
    [
        [0, 0, 1, 2],
        [3, 3, 3, 3],
        [0, 1, 2, 3],
        [-1, 0, -1, 1],
        [-1, 5, -1, -1],
        [-1, -1, -1, -1],
    ]
)


# -- answers -----------------------------------------------------------------------


def test_distinct_by_hand():
    """No answer would be an answer, or gaps between codes be counted."""
    np.testing.assert_array_equal(distinct(ANSWERS), [3, 1, 4, 2, 1, 0])


def test_entropy_by_hand():
    """Shares would be of n, not of the samples that have an answer."""
    half = math.log(2)
    found = entropy(ANSWERS)
    np.testing.assert_allclose(found, [1.5 * half, 0, 2 * half, half, 0, 0], atol=1e-15)
    found = entropy(ANSWERS, normalised=True)
    np.testing.assert_allclose(found, [0.75, 0, 1, 1, 0, 0], atol=1e-15)
    assert found.max() <= 1
    assert not np.signbit(found).any()


def test_every_measure_is_a_finite_number_per_problem():
    """A bootstrap on top would refuse nan, or integers be divided as such."""
    for measure in (distinct, entropy):
        found = measure(ANSWERS)
        assert found.dtype == np.float64
        assert found.shape == (6,)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(measure(ANSWERS[:, ::-1]), found, atol=1e-15)
        assert measure(np.zeros((0, 4), int)).shape == (0,)


# -- routes ------------------------------------------------------------------------


def _routes(n=5, positions=7, layers=4, chosen=3, experts=150, seed=0):
    """Random routes: layer 1 is dense, lengths differ, one sample is empty."""
    generator = np.random.default_rng(seed)
    draws = generator.random((n, positions, layers, experts))
    # The first few experts are likelier, so that sets overlap.
    draws[..., :5] += 0.9
    draws[..., -3:] += 0.9
    routes = np.argsort(-draws, axis=-1)[..., :chosen].astype(np.int16)
    lengths = generator.integers(2, positions + 1, n)
    lengths[-1] = 0
    routes[:, :, 1] = -1
    for sample, length in enumerate(lengths):
        routes[sample, length:] = -1
    return routes, lengths


def _jaccard(a, b) -> float:
    a, b = ({x for x in s.ravel().tolist() if x >= 0} for s in (a, b))
    return len(a & b) / len(a | b) if a and b else math.nan


def _pair(a, b, layer) -> float:
    """Mean over the positions of two samples, spelled out with Python's sets."""
    found = [_jaccard(x[layer], y[layer]) for x, y in zip(a, b, strict=False)]
    found = [x for x in found if not math.isnan(x)]
    return float(np.mean(found)) if found else math.nan


def test_route_jaccard_by_hand():
    """Order would count, expert 66 be taken for 2, or lone positions compared."""
    a = np.array([[[0, 1], [-1, -1]], [[2, 3], [-1, -1]], [[4, 5], [-1, -1]]])
    b = np.array([[[1, 0], [-1, -1]], [[3, 66], [-1, -1]]])
    found = route_jaccard(a, b)
    np.testing.assert_allclose(found, [(1 + 1 / 3) / 2, np.nan])
    np.testing.assert_array_equal(route_jaccard(b, a), found)
    np.testing.assert_array_equal(route_jaccard(a, a), [1, np.nan])
    assert np.isnan(route_jaccard(a, b[:0])).all()


def test_mean_route_jaccard_is_over_all_pairs():
    """Padding would be compared, long pairs weigh more, or experts share a bit."""
    routes, lengths = _routes()
    pairs = list(itertools.combinations(range(4), 2))  # sample 4 is empty
    expected = [
        np.mean([_pair(routes[i], routes[j], layer) for i, j in pairs])
        for layer in (0, 2, 3)
    ]
    found = mean_route_jaccard(routes, lengths)
    np.testing.assert_allclose(found[[0, 2, 3]], expected)
    assert np.isnan(found[1])
    assert found.dtype == np.float64
    assert 0.05 < min(expected) < max(expected) < 0.95
    two = mean_route_jaccard(routes[:2], lengths[:2])
    apart = route_jaccard(routes[0, : lengths[0]], routes[1, : lengths[1]])
    np.testing.assert_allclose(two, apart)


def test_lengths_end_a_sample():
    """What a buffer holds behind the end of a sample would be compared."""
    routes, lengths = _routes()
    filled = np.where(np.arange(7)[:, None, None] < lengths[:, None, None, None], 0, 9)
    dirty = np.maximum(routes, np.where(routes < 0, filled, -1).astype(np.int16))
    dirty[:, :, 1] = -1
    assert (dirty != routes).any()
    found = mean_route_jaccard(dirty, lengths)
    np.testing.assert_array_equal(found, mean_route_jaccard(routes, lengths))


def test_pairs_are_drawn_where_there_are_too_many():
    """The pairs drawn would repeat, favour some samples, or follow no seed."""
    routes, lengths = _routes(n=12, seed=1)
    every = mean_route_jaccard(routes, lengths)
    np.testing.assert_array_equal(
        mean_route_jaccard(routes, lengths, max_pairs=66), every
    )
    few = mean_route_jaccard(routes, lengths, max_pairs=10)
    np.testing.assert_array_equal(
        mean_route_jaccard(routes, lengths, max_pairs=10), few
    )
    assert (mean_route_jaccard(routes, lengths, max_pairs=10, seed=1) != few)[0]
    near = np.mean(
        [mean_route_jaccard(routes, lengths, max_pairs=10, seed=s) for s in range(60)],
        axis=0,
    )
    np.testing.assert_allclose(near[[0, 2, 3]], every[[0, 2, 3]], atol=0.03)


def test_chunks_change_nothing(monkeypatch):
    """Pairs at the edge of a chunk would be lost."""
    routes, lengths = _routes()
    found = mean_route_jaccard(routes, lengths)
    for chunk in (1, 50):
        monkeypatch.setattr(diversity, "_CHUNK", chunk)
        np.testing.assert_allclose(mean_route_jaccard(routes, lengths), found)


def test_routes_are_bounded_in_memory():
    """All pairs at once would be hundreds of times the sets: gigabytes in earnest."""
    routes = np.random.default_rng(0).integers(0, 128, (32, 1024, 2, 4), np.int16)
    tracemalloc.start()
    try:
        found = mean_route_jaccard(routes, np.full(32, 1024), max_pairs=496)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ((found > 0) & (found < 0.1)).all()
    assert peak < 60e6


@pytest.mark.parametrize(
    "n, lengths, options, message",
    [
        (1, [7], {}, "at least two samples and one pair, found 1"),
        (2, [7, 7], {"max_pairs": 0}, "one pair, found 2 and 0"),
        (2, [7, 8], {}, r"2 lengths in 0\.\.7, found \[7, 8\]"),
        (2, [7, -1], {}, r"found \[7, -1\]"),
        (2, [7], {}, r"2 lengths in 0\.\.7, found \[7\]"),
    ],
)
def test_routes_that_do_not_match_are_refused(untyped, n, lengths, options, message):
    """A mean over no pairs is nan, and a wrong length would compare padding."""
    routes = _routes()[0][:n]
    with pytest.raises(ValueError, match=message):
        mean_route_jaccard(routes, np.array(lengths), **options)


def test_routes_of_different_models_are_refused(untyped):
    """Layers would be compared with those of another model."""
    with pytest.raises(ValueError, match=r"equal L and K, found \(7, 4, 3\)"):
        route_jaccard(np.zeros((7, 4, 3), int), np.zeros((7, 2, 3), int))
