"""Running statistics against plain NumPy over all logits at once."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.analysis.router_scores import rank_curve
from jaxmoe.analysis.router_stats import (
    BIN_WIDTH,
    MASSES,
    RouterStats,
    empty,
    from_json,
    merge,
    to_host,
    to_json,
    update,
)

ROWS, EXPERTS, CHOSEN = 64, 12, 3
_update = jax.jit(update)


def _tokens(seed: int, scale: float = 2.0):
    """Logits, chosen experts with some places empty, and a mask."""
    generator = np.random.default_rng(seed)
    logits = (scale * generator.gumbel(size=(ROWS, EXPERTS))).astype(np.float32)
    experts = np.argsort(-logits, axis=1)[:, :CHOSEN].astype(np.int32)
    experts[generator.random(experts.shape) < 0.2] = -1
    return logits, experts, generator.random(ROWS) < 0.7


def _stats(*parts) -> RouterStats:
    """Host statistics of parts (logits, experts, mask), one update after the other."""
    stats = empty(EXPERTS)
    for logits, experts, mask in parts:
        stats = _update(stats, *map(jnp.asarray, (logits, experts, mask)))
    return to_host(stats)


def _sorted_p(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
    return -np.sort(-p / p.sum(axis=1, keepdims=True), axis=1)


def _pairs(experts: np.ndarray) -> np.ndarray:
    """Counted one by one, pairs of an expert with itself too."""
    counts = np.zeros((EXPERTS, EXPERTS), int)
    for row in experts:
        for i in row[row >= 0]:
            counts[i, row[row >= 0]] += 1
    return counts


def _check(stats: RouterStats, logits: np.ndarray, experts: np.ndarray) -> None:
    """All statistics, of rows that all count."""
    p = _sorted_p(logits)
    log_p = np.log(p)
    assert stats.tokens == len(logits)
    np.testing.assert_allclose(stats.probability, p.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats.mass, np.cumsum(p.mean(axis=0)), rtol=1e-5)
    np.testing.assert_allclose(stats.log_probability, log_p.mean(axis=0), rtol=1e-5)
    gaps = (log_p[:, :-1] - log_p[:, 1:]).mean(axis=0)
    np.testing.assert_allclose(stats.gaps, gaps, rtol=1e-4, atol=1e-6)
    entropy = -(p * log_p).sum(axis=1)
    found = stats.entropy
    assert found == pytest.approx((entropy.mean(), entropy.std()), rel=1e-4, abs=1e-5)
    for share in (0.1, 0.5, 0.9):
        exact = np.quantile(p, share, axis=0, method="inverted_cdf")
        error = np.abs(np.log(stats.quantile(share)) - np.log(exact))
        assert error.max() <= BIN_WIDTH / 2 + 1e-4
    size = (np.cumsum(p, axis=1)[None] < np.array(MASSES)[:, None, None] - 1e-6).sum(2)
    exact = [np.bincount(row, minlength=EXPERTS) for row in size]
    np.testing.assert_array_equal(stats.head_sizes, exact)
    np.testing.assert_array_equal(stats.chosen, _pairs(experts))
    np.testing.assert_array_equal(stats.load, np.diagonal(_pairs(experts)))


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])
def test_statistics_are_those_of_all_logits(scale):
    """A rank, a mask or an empty place would be counted as another."""
    parts = [_tokens(seed, scale) for seed in range(3)]
    logits, experts = (
        np.concatenate([part[i][part[2]] for part in parts]) for i in (0, 1)
    )
    _check(_stats(*parts), logits, experts)


def test_ties_and_all_experts():
    """Equal logits would be lost, or a load of all experts be other than even."""
    logits = np.zeros((ROWS, EXPERTS), np.float32)
    logits[: ROWS // 2, 5] = 1.0
    experts = np.tile(np.arange(EXPERTS, dtype=np.int32), (ROWS, 1))
    stats = _stats((logits, experts, np.ones(ROWS, bool)))
    _check(stats, logits, experts)
    assert (stats.load == ROWS).all()
    # Without its own and with equal loads all pairs are as expected.
    lift = stats.coactivation()
    assert np.isnan(np.diagonal(lift)).all()
    np.testing.assert_allclose(lift[~np.eye(EXPERTS, dtype=bool)], 1)


def test_uniform_rows_reach_half_with_half_of_the_experts():
    """Rounding of sums would make the head one expert larger on some machines."""
    experts = np.full((ROWS, CHOSEN), -1, np.int32)
    logits = np.full((ROWS, EXPERTS), 7.0, np.float32)
    stats = _stats((logits, experts, np.ones(ROWS, bool)))
    assert stats.head_size(0.5) == EXPERTS // 2
    with pytest.raises(ValueError, match=r"counted at .* found 0\.6"):
        stats.head_size(0.6)


def test_experts_that_a_token_may_not_have_are_no_ranks():
    """Ranks of probability 0 would end the tail, and their logarithms every mean."""
    logits, experts, mask = _tokens(0)
    ranks = 8
    allowed = np.random.default_rng(1).permuted(
        np.tile(np.arange(EXPERTS) < ranks, (ROWS, 1)), axis=1
    )
    confined = np.where(allowed, logits, -np.inf).astype(np.float32)
    found = to_host(_update(empty(EXPERTS, ranks), confined, experts, mask))
    assert (found.ranks, found.num_experts) == (ranks, EXPERTS)
    alone = logits[allowed].reshape(ROWS, ranks)
    plain = to_host(_update(empty(ranks), alone, np.full_like(experts, -1), mask))
    for name in ("tokens", "p_sum", "gap_sum", "log_bins", "entropy_sum", "head_sizes"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(plain, name), rtol=1e-5, err_msg=name
        )
    np.testing.assert_array_equal(found.chosen, _pairs(experts[mask]))
    again = from_json(json.loads(json.dumps(to_json(found))))
    assert jax.tree.all(jax.tree.map(np.array_equal, found, again))
    for wrong in (logits, np.where(allowed, confined, np.nan)):  # too many, or none
        with pytest.raises(ValueError, match="must be finite"):
            to_host(_update(empty(EXPERTS, ranks), wrong, experts, mask))


def test_what_does_not_count_may_be_anything():
    """A padded row that computed nan would turn every sum into nan."""
    logits, experts, mask = _tokens(0)
    clean = _stats((logits, experts, mask))
    logits[~mask] = np.nan
    dirty = _stats((logits, experts, mask))
    for a, b in zip(*map(jax.tree.leaves, (clean, dirty)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_refuses_logits_that_are_not_finite(wrong):
    """A broken router would be reported with a token less, and nobody be told."""
    logits, experts, mask = _tokens(0)
    logits[np.flatnonzero(mask)[:2], 1] = wrong
    with pytest.raises(ValueError, match="must be finite, found 2 tokens"):
        _stats((logits, experts, mask))


def test_extreme_logits():
    """A probability that underflows has a logarithm nevertheless, and a last bin."""
    logits = np.tile(np.float32([1000, 0] + [-1000] * (EXPERTS - 2)), (ROWS, 1))
    experts = np.full((ROWS, CHOSEN), -1, np.int32)
    stats = _stats((logits, experts, np.ones(ROWS, bool)))
    assert stats.gaps[:2].tolist() == [1000, 1000]
    assert stats.entropy == (0, 0)
    assert np.log(stats.quantile(0.5)[1]) == pytest.approx(-32, abs=BIN_WIDTH)


def test_quantiles_are_of_the_scores_that_plots_show():
    """The running curve would differ from `rank_curve` by more than it says."""
    logits, experts, _ = _tokens(4)
    stats = _stats((logits, experts, np.ones(ROWS, bool)))
    curve = rank_curve(logits, head=3, tail=8)
    np.testing.assert_allclose(stats.probability, curve.mean, rtol=1e-5)
    assert stats.gaps[:2].sum() == pytest.approx(curve.gap_head, rel=1e-5)
    # Of 64 values the median lies between two of them, here at most one bin apart.
    assert np.abs(np.log(stats.quantile(0.5) / curve.middle)).max() < 2 * BIN_WIDTH


# -- merging -----------------------------------------------------------------------


def test_merging_is_counting_all():
    """Batches would be weighted wrongly, or the spread between them be forgotten."""
    a, b = _tokens(0, 0.1), _tokens(1, 6.0)
    once, parts = _stats(a, b), merge(_stats(a), _stats(b))
    for one, other in zip(*map(jax.tree.leaves, (once, parts)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
        assert other.dtype in (np.int64, np.float64)
    nothing = to_host(empty(EXPERTS))
    for one, other in zip(
        *map(jax.tree.leaves, (parts, merge(nothing, parts))), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_many_tokens_lose_nothing():
    """After 10^8 tokens float32 sums would stand still, and int32 products overflow."""
    one = _stats(_tokens(0))
    many = one
    for _ in range(27):  # doubled until there are some 10^9 tokens and more
        many = merge(many, many)
    assert many.tokens == one.tokens << 27 and many.tokens > 2**31
    np.testing.assert_array_equal(many.chosen, one.chosen << 27)
    more = merge(many, one)
    assert more.p_sum[-1] - many.p_sum[-1] == pytest.approx(one.p_sum[-1], rel=1e-4)
    assert more.entropy == pytest.approx(one.entropy)


def test_equal_entropies_keep_their_small_spread():
    """A sum of squares would cancel: the deviation of an untrained router is tiny."""
    parts = [_tokens(seed, 0.01) for seed in range(2)]
    logits = np.concatenate([part[0][part[2]] for part in parts])
    p = _sorted_p(logits)
    exact = -(p * np.log(p)).sum(axis=1)
    assert exact.std() < 1e-4
    assert _stats(*parts).entropy[1] == pytest.approx(exact.std(), rel=0.05)


def test_no_tokens_have_no_mean():
    """0 / 0 would be shown as a probability."""
    with pytest.raises(ValueError, match="at least one token, found none"):
        _ = to_host(empty(EXPERTS)).probability


# -- pairs -------------------------------------------------------------------------


def test_pairs_that_go_together_stand_out():
    """Two experts always chosen together would look like any two."""
    generator = np.random.default_rng(0)
    experts = np.full((ROWS, CHOSEN), -1, np.int32)
    experts[: ROWS // 2, :2] = [0, 1]
    experts[ROWS // 2 :, :2] = generator.permuted(
        np.tile(np.arange(2, EXPERTS - 1), (ROWS // 2, 1)), axis=1
    )[:, :2]
    logits = np.zeros((ROWS, EXPERTS), np.float32)
    lift = _stats((logits, experts, np.ones(ROWS, bool))).coactivation()
    assert lift[0, 1] > 1.5
    assert lift[0, 2] == lift[1, 5] == 0
    assert np.isnan(lift[-1]).all()  # never chosen
    np.testing.assert_array_equal(lift, lift.T)


# -- files -------------------------------------------------------------------------


def test_json_gives_back_all():
    """A report could not be read again, or merged with the next."""
    stats = _stats(_tokens(0), _tokens(1))
    read = from_json(json.loads(json.dumps(to_json(stats))))
    for one, other in zip(*map(jax.tree.leaves, (stats, read)), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert read.quantile(0.5).tolist() == stats.quantile(0.5).tolist()


@pytest.mark.parametrize(
    "change",
    [{"p_sum": [1.0] * 5}, {"bin_width": 0.5}, {"tokens": [3]}, {"unknown": 1}],
    ids=str,
)
def test_json_of_something_else(change):
    """Statistics with other bins would be read as if they were these."""
    values = to_json(_stats(_tokens(0))) | change
    with pytest.raises(ValueError, match="expected router statistics"):
        from_json(values)
