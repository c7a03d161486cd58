"""What a model declares of its weights, before any exists."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoe
from jaxmoe.families.qwen3_moe import QWEN3_30B_A3B
from jaxmoe.nn.decoder import abstract_params, logical_axes
from jaxmoe.sharding.rules import LOGICAL_AXES
from tests.tiny import prompt_of, tiny_config, tiny_params


def test_every_dimension_of_every_weight_has_a_logical_axis():
    """A weight could not be spread over a mesh, or only by its shape."""
    weights, axes = abstract_params(QWEN3_30B_A3B), logical_axes(QWEN3_30B_A3B)
    assert set(weights) == set(axes)
    for name, weight in weights.items():
        assert len(axes[name]) == len(weight.shape), name
        assert set(axes[name]) <= set(LOGICAL_AXES), name
    used = {axis for names in axes.values() for axis in names}
    # Dense layers, gates of heads, packed experts, other mixers and heads: none here.
    others = {"mlp", "query_gate", "block", "key_heads", "value_heads", "conv", "label"}
    assert used == set(LOGICAL_AXES) - others - {"latent"}


def test_declaring_a_large_model_allocates_nothing():
    """Loading would first make 30 billion weights of its own."""
    weights = abstract_params(QWEN3_30B_A3B)
    assert all(isinstance(w, jax.ShapeDtypeStruct) for w in weights.values())
    assert {w.dtype for w in weights.values()} == {jnp.dtype(jnp.bfloat16)}
    assert 30.5e9 < sum(w.size for w in weights.values()) < 30.6e9


def test_multipliers_are_those_of_the_weights():
    """Granite's would be left out, or reach another place. Each is the same as a
    multiple of some weights: of the embedding, of what layers end with, of the head."""
    config = tiny_config()
    params, prompt = tiny_params(config), prompt_of(9)
    layers = tuple(replace(layer, residual=0.5) for layer in config.layers)
    scaled = replace(config, layers=layers, embed_scale=3.0, logits_divisor=4.0)
    factors = {"embed.weight": 3.0, "head.weight": 0.25}
    factors |= {n: 0.5 for n in params if n.endswith(("o.weight", "down"))}
    other = {n: w * factors.get(n, 1.0) for n, w in params.items()}
    found = jaxmoe.forward(jaxmoe.Model(scaled, params), prompt)
    expected = jaxmoe.forward(jaxmoe.Model(config, other), prompt)
    plain = jaxmoe.forward(jaxmoe.Model(config, params), prompt)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert abs(found - plain).max() > 0.1
