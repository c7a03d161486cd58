"""The root-mean-square norm against its formula."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmoe.config import NormConfig
from jaxmoe.nn.norm import ProjectionNorm, RMSNorm
from tests.tiny import CONTEXT


def _norm(scale, eps=1e-6, **more) -> RMSNorm:
    norm = RMSNorm(scale.shape[0], NormConfig(eps, **more), scale.dtype, "embed")
    norm.scale = nnx.Param(scale)
    return norm


def _rows(shape, seed=0):
    rows = np.random.default_rng(seed).normal(size=shape) * 3
    return jnp.asarray(rows, jnp.float32)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7)])
@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_equals_the_formula(shape, eps):
    """x / sqrt(mean(x^2) + eps) * scale: eps inside the root, no mean taken off."""
    x, scale = _rows(shape), _rows((7,), seed=1)
    wide = np.asarray(x, np.float64)
    root = np.sqrt((wide**2).mean(axis=-1, keepdims=True) + eps)
    expected = wide / root * np.asarray(scale)
    np.testing.assert_allclose(_norm(scale, eps)(x), expected, rtol=1e-5)


def test_size_of_the_input_does_not_matter():
    """Residual streams of deep models grow by orders of magnitude."""
    x, scale = _rows((4, 16)), jnp.ones(16)
    normed = _norm(scale)(x)
    np.testing.assert_allclose(_norm(scale)(x * 1024), normed, rtol=1e-4)
    np.testing.assert_allclose((normed**2).mean(axis=-1), 1.0, rtol=1e-4)


def test_zeros_stay_zeros():
    """eps is there so that a row of zeros gives no NaN."""
    np.testing.assert_array_equal(_norm(jnp.ones(8))(jnp.zeros((2, 8))), 0)


def test_scale_may_be_bits():
    """On CPU a bfloat16 scale is held as uint16."""
    scale = _rows((8,)).astype(jnp.bfloat16)
    bits = jnp.asarray(np.asarray(scale).view(np.uint16))
    x = _rows((3, 8), seed=2)
    np.testing.assert_array_equal(_norm(bits)(x), _norm(scale.astype(jnp.float32))(x))


def test_bfloat16_is_computed_in_float32():
    """The mean of squares of 4096 bfloat16 numbers cannot be summed in bfloat16."""
    x = _rows((2, 4096)).astype(jnp.bfloat16)
    found = _norm(jnp.ones(4096, jnp.bfloat16))(x)
    assert found.dtype == jnp.bfloat16
    exact = _norm(jnp.ones(4096))(x.astype(jnp.float32))
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["row", "projection"])
def test_the_weight_may_come_before_the_cast(kind, offset):
    """Rounded twice, or 1 + w rounded: GPT-OSS and Qwen3-Next compute neither."""
    x = _rows((40, 4, 16)).astype(jnp.bfloat16)
    scale = (0.01 * _rows((4, 16), seed=1)).astype(jnp.bfloat16)
    config = NormConfig(cast="last", offset=offset)
    if kind == "row":
        scale = scale[0]
        norm = RMSNorm(16, config, scale.dtype, "embed")
        norm.scale = nnx.Param(scale)
        found, axes = norm(x), (-1,)
    else:
        norm = ProjectionNorm(4, 16, config, scale.dtype, "heads")
        norm.scale = nnx.Param(scale)
        found, axes = norm(x, CONTEXT.device), (-2, -1)
    wide = np.asarray(x, np.float64)
    root = np.sqrt((wide**2).mean(axis=axes, keepdims=True) + 1e-6)
    exact = wide / root * (offset + np.asarray(scale, np.float64))
    assert found.dtype == jnp.bfloat16
    # Equal but where float32 rounds to the other side of a tie.
    same = np.asarray(found) == exact.astype(jnp.bfloat16)
    assert same.mean() > 0.995
