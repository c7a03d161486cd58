"""Activations against their formulas, and the clips where they bind."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops.activations import SWIGLU, ClippedSwiGLU

GATE, UP = (a.ravel() for a in np.meshgrid(*2 * [np.linspace(-9, 9, 73)]))


def _values(activation):
    found = activation(jnp.asarray(GATE, jnp.float32), jnp.asarray(UP, jnp.float32))
    return np.asarray(found, np.float64)


def test_swiglu():
    """Every model but GPT-OSS would be another."""
    expected = GATE / (1 + np.exp(-GATE)) * UP
    np.testing.assert_allclose(_values(SWIGLU), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("alpha", "limit"), [(1.702, 7.0), (1.0, 2.5)])
def test_clipped_swiglu(alpha, limit):
    """GPT-OSS: a gate clipped from below as well moves logits by a twelfth."""
    gate, up = np.minimum(GATE, limit), np.clip(UP, -limit, limit)
    expected = (up + 1) * gate / (1 + np.exp(-alpha * gate))
    found = _values(ClippedSwiGLU(alpha, limit))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    both = np.clip(GATE, -limit, limit)
    wrong = (up + 1) * both / (1 + np.exp(-alpha * both))
    assert abs(found - wrong).max() > 1e-5 * limit
