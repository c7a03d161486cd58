"""What a model declares of its weights, before any exists."""

import jax
import jax.numpy as jnp

from jaxmoe.families.qwen3_moe import QWEN3_30B_A3B
from jaxmoe.nn.decoder import abstract_params, logical_axes
from jaxmoe.sharding.rules import LOGICAL_AXES


def test_every_dimension_of_every_weight_has_a_logical_axis():
    """A weight could not be spread over a mesh, or only by its shape."""
    weights, axes = abstract_params(QWEN3_30B_A3B), logical_axes(QWEN3_30B_A3B)
    assert set(weights) == set(axes)
    for name, weight in weights.items():
        assert len(axes[name]) == len(weight.shape), name
        assert set(axes[name]) <= set(LOGICAL_AXES), name
    used = {axis for names in axes.values() for axis in names}
    assert used == set(LOGICAL_AXES) - {"mlp", "key_heads", "value_heads", "conv"}


def test_declaring_a_large_model_allocates_nothing():
    """Loading would first make 30 billion weights of its own."""
    weights = abstract_params(QWEN3_30B_A3B)
    assert all(isinstance(w, jax.ShapeDtypeStruct) for w in weights.values())
    assert {w.dtype for w in weights.values()} == {jnp.dtype(jnp.bfloat16)}
    assert 30.5e9 < sum(w.size for w in weights.values()) < 30.6e9
