"""Heads of routers against their definition, token by token."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.analysis.router_heads import PLACES, Heads, Ranks, head_sums, ranks_of

M, R = 3, 8


def _made_up(count=2, size=20, experts=12):
    """Scores of two sequences, the second one of 15 tokens, 6 and 4 of prompts."""
    random = np.random.default_rng(0)
    ranking = random.normal(size=(count * size, experts)).astype(np.float32)
    position = np.tile(np.arange(size, dtype=np.int32), count)
    length, prompt = np.repeat([20, 15], size), np.repeat([6, 4], size)
    classes = np.stack([position < prompt, (position >= prompt) & (position < length)])
    ranking[~classes.any(axis=0)] = np.nan  # padding
    return ranking, classes, position


def test_sums_are_those_of_each_sequence_class_and_bin():
    """A token would be counted beside another prompt, or padding make it nan."""
    ranking, classes, position = _made_up()
    given = (jnp.asarray(array) for array in (ranking, classes, position))
    found = np.asarray(head_sums(*given, 2, Ranks(M, R, 12)))
    assert found.shape == (2, 2, len(PLACES) + 1, 4)
    expected = np.zeros(found.shape)
    for n in np.flatnonzero(classes.any(axis=0)):
        row = ranking[n].astype(np.float64)
        log_p = np.sort(row - np.log(np.exp(row).sum()))[::-1]
        head = (log_p[0] - log_p[M - 1]) / (M - 1)
        tail = (log_p[M - 1] - log_p[R - 1]) / (R - M)
        place = sum(position[n] >= edge for edge in PLACES)
        four = [1, head, tail, np.exp(log_p[:M]).sum()]
        expected[n // 20, int(classes[1, n]), place] += four
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_steepness_is_a_ratio_of_means():
    """A head would be read off where scores fall evenly, or in another layer."""
    sums = np.zeros((4, 2, 2, 5, 4))
    sums[:, 0, 0, 1] = [10, 2.0, 2.0, 5]  # falls evenly
    sums[:, 1, 1, 0] = [10, 6.0, 2.0, 5]  # three times as fast
    heads = Heads(Ranks(M, R, 12), (0, 4), ("prompt", "generated"), tuple("abcd"), sums)
    even = heads.steepness(layer=0)
    assert (even.mean, even.low, even.high) == pytest.approx((1, 1, 1))
    assert heads.steepness(layer=4, of_class="generated", place=0).mean == 3
    assert heads.steepness().mean == 2
    assert np.isnan(heads.steepness(layer=4, place=1).mean)
    assert heads.mean("mass", of_class="prompt").mean == 0.5
    assert heads.tokens(layer=4) == 40 and heads.tokens() == 40


@pytest.mark.parametrize(
    ("k", "allowed", "ranks"),
    [
        (8, 128, (5, 32, 128)),
        (1, 16, (2, 4, 16)),
        (4, 8, (3, 8, 8)),
        (2, 2, None),
        (1, 1, None),
    ],
)
def test_ranks_of_a_model(k, allowed, ranks):
    """The head would end past the experts that there are."""
    assert ranks_of(k, allowed) == ranks


def test_scores_without_structure_have_the_steepness_of_normal_numbers():
    """Any scores fall faster at the top, which would pass for a head."""
    ranks = ranks_of(8, 64)
    assert ranks is not None
    drawn = np.random.default_rng(0).normal(0, 3, (20_000, 64))
    best = -np.sort(-drawn, axis=1).mean(axis=0)
    head = (best[0] - best[ranks.head - 1]) / (ranks.head - 1)
    tail = (best[ranks.head - 1] - best[ranks.tail - 1]) / (ranks.tail - ranks.head)
    assert ranks.normal == pytest.approx(head / tail, rel=0.02)
    assert ranks.normal == pytest.approx(4.1, abs=0.1)
