"""Weights of chosen experts: the model's rule, whatever was chosen and why."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.router.policies import ranked
from jaxmoe.router.scores import (
    ExtraExperts,
    Groups,
    SigmoidScores,
    SoftmaxScores,
    log_score,
)

BOTH = pytest.mark.parametrize("normalise", [True, False])


def _exact(logits, experts, normalise):
    """The rule in float64, one row."""
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max())
    p /= p.sum()
    chosen = np.where(np.asarray(experts) >= 0, p[experts], 0.0)
    return chosen / chosen.sum() if normalise else chosen


@partial(jax.jit, static_argnums=0)
def _weights(scores, logits, experts):
    return scores.weights(logits, experts)


def _random(rows, seed=0, experts=16, k=4):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, experts)).astype(np.float32) * 3
    chosen = np.stack([rng.permutation(experts)[:k] for _ in range(rows)])
    return jnp.asarray(logits), jnp.asarray(chosen, jnp.int32)


@BOTH
def test_weights_are_the_softmax_rule(normalise):
    """Another denominator (the top k, say) would scale every layer's output."""
    logits, experts = _random(40)
    weights = _weights(SoftmaxScores(normalise), logits, experts)
    expected = [_exact(l, e, normalise) for l, e in zip(logits, experts, strict=True)]
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    if normalise:
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)


@BOTH
def test_empty_places_weigh_nothing(normalise):
    """With fewer than k experts the rest must carry all of the weight."""
    logits, experts = _random(5)
    experts = experts.at[:, 2:].set(-1)
    weights = _weights(SoftmaxScores(normalise), logits, experts)
    assert (weights[:, 2:] == 0).all()
    fewer = _weights(SoftmaxScores(normalise), logits, experts[:, :2])
    np.testing.assert_allclose(weights[:, :2], fewer, rtol=1e-6)


@BOTH
def test_a_row_without_experts_weighs_nothing(normalise):
    """0 / 0 in a slot at rest would trip `jax_debug_nans`, or leak into its cache."""
    logits, experts = _random(3)
    weights = _weights(SoftmaxScores(normalise), logits, experts.at[1].set(-1))
    np.testing.assert_array_equal(weights[1], np.zeros(4))
    assert (weights[0] > 0).all()


def test_unlikely_experts_are_still_normalised():
    """A very noisy policy may take only experts whose probability underflows."""
    logits = jnp.array([[0.0, -150.0, -151.0, 0.0]])
    weights = _weights(SoftmaxScores(True), logits, jnp.array([[1, 2]]))
    expected = np.array([[1.0, np.exp(-1.0)]]) / (1 + np.exp(-1.0))
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


@BOTH
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_extreme_logits_stay_finite(normalise, scale):
    """Router logits of trained models reach the hundreds."""
    logits, experts = _random(20, seed=1)
    weights = _weights(SoftmaxScores(normalise), logits * scale, experts)
    assert jnp.isfinite(weights).all()
    assert ((weights >= 0) & (weights <= 1)).all()


@BOTH
def test_logits_of_other_types_are_scored_in_float32(normalise):
    """A softmax in bfloat16 has three digits; near-ties would decide differently."""
    logits, experts = _random(6)
    narrow = logits.astype(jnp.bfloat16)
    scores = SoftmaxScores(normalise)
    assert _weights(scores, narrow, experts).dtype == jnp.float32
    assert scores.ranking(narrow).dtype == jnp.float32
    wide = _weights(scores, narrow.astype(jnp.float32), experts)
    np.testing.assert_array_equal(_weights(scores, narrow, experts), wide)


def test_ranking_orders_as_the_probabilities_do():
    """A ranking that is not monotone in p would choose other experts than the model."""
    logits, _ = _random(10)
    ranking = SoftmaxScores(True).ranking(logits)
    order = jnp.argsort(ranking, axis=1)
    np.testing.assert_array_equal(order, jnp.argsort(jax.nn.softmax(logits), axis=1))


@BOTH
def test_leading_axes_are_free(normalise):
    """The rule is used on [E], [N, E] and [S, T, E] alike, with equal numbers."""
    logits, experts = _random(6)
    scores = SoftmaxScores(normalise)
    flat = _weights(scores, logits, experts)
    cube = _weights(scores, logits.reshape(2, 3, -1), experts.reshape(2, 3, -1))
    np.testing.assert_array_equal(cube.reshape(flat.shape), flat)
    np.testing.assert_allclose(
        _weights(scores, logits[0], experts[0]), flat[0], rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_rule_says_the_type_of_its_weights(dtype):
    """Rounded weights would weigh where a family keeps float32, or the other way."""
    assert SoftmaxScores(True).weight_dtype(dtype) == dtype
    wide = SoftmaxScores(True, weight_type="float32")
    assert wide.weight_dtype(dtype) == jnp.float32
    assert wide != SoftmaxScores(True)


# -- sigmoid, scale, groups ------------------------------------------------------


@BOTH
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_weights_are_the_sigmoid_rule(normalise, scale):
    """A bias inside, a missing scale, or softmax would scale every layer's output."""
    logits, experts = _random(40)
    experts = experts.at[3, 2:].set(-1).at[4].set(-1)
    s = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    taken = np.take_along_axis(s, np.maximum(experts, 0), 1) * (
        np.asarray(experts) >= 0
    )
    wanted = taken / (taken.sum(1, keepdims=True) + 1e-20) if normalise else taken
    rule = SigmoidScores(normalise, scale=scale, choice_bias=True)
    np.testing.assert_allclose(
        _weights(rule, logits, experts), scale * wanted, rtol=1e-5
    )


def test_sigmoids_that_vanish_are_normalised_by_more_than_nothing():
    """0 / 0 where every chosen score underflows; eps decides before that."""
    logits = jnp.array([[-45.0, -46.0, 0.0], [-200.0, -200.0, 0.0]])
    weights = _weights(SigmoidScores(), logits, jnp.array([[0, 1], [0, 1]]))
    s = np.exp([-45.0, -46.0])
    np.testing.assert_allclose(weights[0], s / (s.sum() + 1e-20), rtol=1e-4)
    np.testing.assert_array_equal(weights[1], [0, 0])


def test_a_least_sum():
    """Experts of almost no probability would weigh as much as likely ones."""
    logits, experts = jnp.array([[0.0, -40.0, -41.0]]), jnp.array([[1, 2]])
    weights = _weights(SoftmaxScores(True, least=1e-12), logits, experts)
    np.testing.assert_allclose(weights[0], np.exp([-40.0, -41.0]) / 1e-12, rtol=1e-4)


def test_log_scores_keep_the_order():
    """Below the logarithm's reach experts would tie, and k_keep take others."""
    positive = np.logspace(-8, 0.5, 60)
    scores = np.r_[-positive[::-1], 0, positive].astype(np.float32)
    found = np.asarray(log_score(jnp.asarray(scores)))
    assert np.isfinite(found).all() and (np.diff(found) > 0).all()
    np.testing.assert_allclose(
        found[scores > 1e-6], np.log(scores[scores > 1e-6]), rtol=1e-6
    )


def test_a_bias_of_all_experts_alike_changes_nothing():
    """A bias drifts in training, and the noise would weigh less or more."""
    logits, _ = _random(20)
    bias = jnp.asarray(np.random.default_rng(1).normal(size=16) * 0.3, jnp.float32)
    rule = SigmoidScores(choice_bias=True)
    once, moved = (np.asarray(rule.ranking(logits, bias + b)) for b in (0, 4.0))
    usual = once > -13
    assert usual.mean() > 0.6
    np.testing.assert_allclose(moved[usual], once[usual], atol=2e-3)
    plain = SigmoidScores().ranking(logits)
    np.testing.assert_allclose(
        rule.ranking(logits, jnp.zeros(16)), np.log(jax.nn.sigmoid(logits)), atol=1e-5
    )
    np.testing.assert_allclose(plain, np.log(jax.nn.sigmoid(logits)), atol=1e-5)


def test_chosen_experts_share_what_the_best_would_weigh():
    """The two readings of the paper, and nothing changes where the best are chosen."""
    logits, experts = _random(50)
    experts = experts.at[0, 3:].set(-1)
    own, kept = SoftmaxScores(False), SoftmaxScores(False, keep_sum=True)
    best = jnp.argsort(-logits, axis=1)[:, :4].astype(jnp.int32)
    assert (_weights(kept, logits, best) == _weights(own, logits, best)).all()
    found = np.asarray(_weights(kept, logits, experts), np.float64)
    p = np.asarray(_weights(own, logits, experts), np.float64)
    wanted = np.asarray(_weights(own, logits, best), np.float64)
    wanted = [wanted[0, :3].sum(), *wanted[1:].sum(axis=1)]
    np.testing.assert_allclose(found.sum(axis=1), wanted, rtol=1e-5)
    shares = p / p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        found / found.sum(axis=1, keepdims=True), shares, rtol=1e-5
    )
    for rule in (SoftmaxScores, SigmoidScores):
        with pytest.raises(ValueError, match="keep_sum"):
            rule(True, keep_sum=True)


@pytest.mark.thorough
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.0])
@BOTH
def test_extra_experts_weigh_alpha_times_what_they_would(normalise, alpha):
    """NumPy reference: the best 3 are the model's own, whatever was chosen."""
    logits, experts = _random(40, k=6)
    experts = experts.at[0, 4:].set(-1)
    plain = SoftmaxScores(normalise)
    rule = replace(plain, extra=ExtraExperts(3, alpha))
    found = np.asarray(_weights(rule, logits, experts))
    for row, chosen, weights in zip(logits, experts, found, strict=True):
        own = np.isin(chosen, np.argsort(-row)[:3])
        said = _exact(row, chosen, normalise) * np.where(own, 1, alpha)
        if normalise:
            said /= max(said.sum(), 1e-30)
        np.testing.assert_allclose(weights, said, rtol=1e-5, atol=1e-7)
    if alpha == 1:
        np.testing.assert_array_equal(found, _weights(plain, logits, experts))
    if alpha == 0:  # six places, of which three compute for nothing
        six = jnp.argsort(-logits, axis=1)[:, :6].astype(jnp.int32)
        three = six.at[:, 3:].set(-1)
        alone = np.asarray(_weights(plain, logits, three))
        np.testing.assert_allclose(_weights(rule, logits, six), alone, rtol=1e-5)
    with pytest.raises(ValueError, match="alpha must be .* found -1"):
        ExtraExperts(3, -1)
    with pytest.raises(ValueError, match="without a choice bias"):
        replace(rule, choice_bias=True)


@pytest.mark.parametrize(
    ("groups", "word"),
    [((3, 1, 1), "n_group"), ((8, 1, 3), "n_group"), ((8, 1, 2), "topk_group")],
)
def test_groups_that_do_not_fit(groups, word):
    """Experts would be cut off, or fewer be allowed than a token has."""
    with pytest.raises(ValueError, match=word):
        Groups(*groups).check(16, 4)
    with pytest.raises(ValueError, match="kept"):
        Groups(4, 5, 1)


def test_equal_experts_are_extra_as_the_policy_has_them():
    """-0.0 ranks behind 0.0 to `top_k`: `TopK` would choose an expert of no weight."""
    logits = jnp.float32([-0.0, 0.0, 5.0, -5.0])
    best = ranked(logits, 2).experts
    np.testing.assert_array_equal(best, [2, 0])
    plain = SoftmaxScores(False)
    found = replace(plain, extra=ExtraExperts(2, 0.0)).weights(logits, best)
    np.testing.assert_array_equal(found, plain.weights(logits, best))


@pytest.mark.parametrize("rule", [SoftmaxScores(True), SigmoidScores()])
def test_the_text_of_a_rule_has_extra_experts_where_there_are_any(rule):
    """Runs with and without them would be taken for one."""
    assert "extra" not in repr(rule)
    extra = ExtraExperts(3, 0.5)
    assert f"extra={extra!r}" in repr(replace(rule, extra=extra))
