"""Weights of chosen experts: the model's rule, whatever was chosen and why."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.router.scores import SoftmaxScores

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
