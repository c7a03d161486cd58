"""Rotary embedding against hand-computed values and the properties it must have."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import RopeConfig
from jaxmoe.ops import rope as rope_lib

DEFAULT = RopeConfig(theta=1e6)
LINEAR = RopeConfig(theta=1e4, kind="linear", factor=4.0)
DYNAMIC = RopeConfig(theta=1e4, kind="dynamic", factor=2.0, original_length=64)
YARN = RopeConfig(1e6, "yarn", factor=4.0, original_length=256, attention_factor=1.14)
KINDS = [DEFAULT, LINEAR, DYNAMIC, YARN]
A = 16


def _normal(shape, seed):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def _rotation(rope, positions, lengths=None, head_dim=A):
    positions = jnp.asarray(positions, jnp.int32)
    lengths = positions + 1 if lengths is None else jnp.asarray(lengths, jnp.int32)
    return rope_lib.rotation(rope, head_dim, positions, lengths)


def _turn(rope, x_A, position, length=64):
    cos, sin = _rotation(rope, [position], [length], x_A.shape[0])
    return rope_lib.rotate(x_A[None, None], cos, sin)[0, 0]


@pytest.mark.parametrize("rope", KINDS, ids=lambda r: r.kind)
def test_position_zero_is_left_alone(rope):
    """Angle 0 must be exactly the identity, times the attention factor."""
    x = _normal((A,), seed=0)
    np.testing.assert_allclose(_turn(rope, x, 0), x * rope.attention_factor, rtol=1e-6)


@pytest.mark.parametrize("rope", KINDS, ids=lambda r: r.kind)
def test_norm_is_kept(rope):
    """A rotation that stretched vectors would change every attention score."""
    x = _normal((A,), seed=1)
    for position in (1, 63, 5000, 1_000_000):
        turned = _turn(rope, x, position, position + 1)
        expected = np.linalg.norm(x) * rope.attention_factor
        np.testing.assert_allclose(np.linalg.norm(turned), expected, rtol=1e-5)


@pytest.mark.parametrize("rope", KINDS, ids=lambda r: r.kind)
def test_scores_depend_on_distance_only(rope):
    """q at i and k at j meet as i - j: else a shared prefix could not be moved."""
    q, k = _normal((2, A), seed=2)
    scores = [
        _turn(rope, q, start + 7) @ _turn(rope, k, start) for start in (0, 11, 50)
    ]
    np.testing.assert_allclose(scores, [scores[0]] * 3, rtol=1e-4, atol=1e-5)


def test_pairs_are_halves_of_the_head():
    """x[i] pairs with x[i + A/2] (not with x[i + 1]): another layout, other numbers."""
    x = jnp.array([1.0, 0.0, 0.0, 0.0])  # pair 0 = (x0, x2), frequency 1
    turned = _turn(DEFAULT, x, 1)
    expected = [math.cos(1), 0.0, math.sin(1), 0.0]
    np.testing.assert_allclose(turned, expected, atol=1e-7)
    # Pair 1 = (x1, x3), frequency theta^(-1/2) = 0.001.
    turned = _turn(DEFAULT, jnp.array([0.0, 0.0, 0.0, 2.0]), 500)
    expected = [0.0, -2 * math.sin(0.5), 0.0, 2 * math.cos(0.5)]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_frequencies_by_hand():
    """theta^(-2i/A) for plain rope, divided by the factor for linear."""
    length = jnp.int32(1)
    found = rope_lib.inverse_frequencies(RopeConfig(theta=1e4), 8, length)
    np.testing.assert_allclose(found, [1.0, 0.1, 0.01, 0.001], rtol=1e-6)
    found = rope_lib.inverse_frequencies(LINEAR, 8, length)
    np.testing.assert_allclose(found, [0.25, 0.025, 0.0025, 0.00025], rtol=1e-6)


def test_yarn_keeps_fast_pairs_and_divides_slow_ones():
    """Both ends of YaRN's ramp, and a hand-computed pair on it."""
    rope = RopeConfig(1e4, "yarn", factor=8.0, original_length=4096)
    found = rope_lib.inverse_frequencies(rope, 128, jnp.int32(1))
    plain = rope_lib.inverse_frequencies(RopeConfig(theta=1e4), 128, jnp.int32(1))
    # Pairs turning 32 and 1 times in 4096: 64 ln(4096 / 2 pi n) / ln(1e4) = 20.9,
    # 45.03, so the ramp runs from 20 to 46.
    np.testing.assert_array_equal(found[:21], plain[:21])
    np.testing.assert_allclose(found[46:], plain[46:] / 8, rtol=1e-6)
    weight = (33 - 20) / (46 - 20)
    expected = plain[33] * (1 - weight) + plain[33] / 8 * weight
    np.testing.assert_allclose(found[33], expected, rtol=1e-6)


def test_yarn_without_truncation_moves_the_ramp():
    """`truncate` false keeps the fractional ends of the ramp (GPT-OSS needs it)."""
    rope = RopeConfig(1e4, "yarn", factor=8.0, original_length=4096, truncate=False)
    found = rope_lib.inverse_frequencies(rope, 128, jnp.int32(1))
    low, high = (
        64 * math.log(4096 / (2 * math.pi * turns)) / math.log(1e4) for turns in (32, 1)
    )
    weight = (33 - low) / (high - low)
    expected = 1e4 ** (-33 / 64) * (1 - weight + weight / 8)
    np.testing.assert_allclose(found[33], expected, rtol=1e-5)


def test_yarn_whose_ramp_is_a_step():
    """Equal ends would divide by zero."""
    rope = RopeConfig(1e4, "yarn", 2.0, 4, beta_fast=100.0, beta_slow=100.0)
    found = rope_lib.inverse_frequencies(rope, A, jnp.int32(1))
    assert np.isfinite(found).all()


def test_dynamic_is_plain_up_to_the_limit_and_slower_beyond():
    """Below the limit bit-equal to plain rope; beyond, slower with each token."""
    lengths = jnp.arange(1, 200, dtype=jnp.int32)
    found = rope_lib.inverse_frequencies(DYNAMIC, A, lengths)
    plain = rope_lib.inverse_frequencies(RopeConfig(theta=1e4), A, lengths)
    assert found.shape == (199, A // 2)
    np.testing.assert_array_equal(found[:64], np.tile(plain, (64, 1)))
    assert (np.diff(np.asarray(found[63:, 1:]), axis=0) < 0).all()


def test_dynamic_by_hand():
    """factor 2 at twice the limit: theta * 3^(A / (A - 2))."""
    found = rope_lib.inverse_frequencies(DYNAMIC, 4, jnp.int32(128))
    np.testing.assert_allclose(found, [1.0, (1e4 * 3**2) ** -0.5], rtol=1e-6)


def test_dynamic_samples_do_not_see_each_other():
    """The frequencies of a token are those of its own sequence's length."""
    cos, _ = _rotation(DYNAMIC, [70, 70, 70], [71, 300, 71])
    alone, _ = _rotation(DYNAMIC, [70], [71])
    np.testing.assert_array_equal(cos[0], alone[0])
    np.testing.assert_array_equal(cos[2], alone[0])
    assert (np.asarray(cos[1]) != np.asarray(alone[0])).any()


def test_far_positions_are_exact():
    """float32 angles of position 1M, not a bfloat16's or an accumulated sum."""
    positions = np.array([999_983, 1_000_000])
    cos, sin = _rotation(DEFAULT, positions, head_dim=128)
    frequencies = rope_lib.inverse_frequencies(DEFAULT, 128, jnp.int32(1))
    angles = positions[:, None].astype(np.float32) * np.asarray(frequencies)
    np.testing.assert_allclose(cos, np.cos(angles.astype(np.float64)), atol=2e-7)
    np.testing.assert_allclose(sin, np.sin(angles.astype(np.float64)), atol=2e-7)


@pytest.mark.parametrize("rope", KINDS, ids=lambda r: r.kind)
def test_jit_and_vmap_change_nothing(rope):
    """The same angles inside a compiled, batched step, under strict promotion."""
    positions = jnp.arange(60, 90, dtype=jnp.int32)
    with jax.numpy_rank_promotion("raise"):
        plain = _rotation(rope, positions)
        jitted = jax.jit(lambda p: _rotation(rope, p))(positions)
        vmapped = jax.vmap(lambda p: _rotation(rope, p))(positions[:, None])
    for a, b, c in zip(plain, jitted, vmapped, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
        np.testing.assert_allclose(a, c[:, 0], atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rotation_keeps_the_type_and_computes_in_float32(dtype):
    """bfloat16 input is widened first: the result is rounded once."""
    x = _normal((5, 2, A), seed=3).astype(dtype)
    cos, sin = _rotation(DEFAULT, range(5))
    found = rope_lib.rotate(x, cos, sin)
    assert found.dtype == dtype
    exact = rope_lib.rotate(x.astype(jnp.float32), cos, sin).astype(dtype)
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("pairs", ["halves", "neighbours"])
def test_pairs_and_a_part_of_the_head(pairs):
    """Coordinates would be turned with another, or those beyond the part too."""
    rope = RopeConfig(1e4, width=A // 2, pairs=pairs)
    x = _normal((5, 2, A), seed=3)
    cos, sin = _rotation(rope, range(5))
    found = rope_lib.rotate(x, cos, sin, pairs)
    np.testing.assert_array_equal(found[..., A // 2 :], x[..., A // 2 :])
    short = RopeConfig(1e4)
    cos, sin = _rotation(short, range(5), head_dim=A // 2)
    part = x[..., : A // 2]
    if pairs == "neighbours":
        # The same pairs, brought to halves and back.
        there = np.r_[0 : A // 2 : 2, 1 : A // 2 : 2]
        part = part[..., there]
    expected = rope_lib.rotate(part, cos, sin)
    if pairs == "neighbours":
        expected = expected[..., np.argsort(there)]
    np.testing.assert_allclose(found[..., : A // 2], expected, rtol=1e-6)
