"""Random weights, made on the device tensor by tensor, as a checkpoint's are held."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.execution import default_layers
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.nn.segments import stored_names
from jaxmoe.ops.bf16_bits import held_dtype, hold_for
from jaxmoe.random.keys import sample_key
from jaxmoe.typing import Params

GAINS = {"router.weight": 2.5, "head.weight": 3.0}
"""Over 1 / sqrt(fan-in): routers that are sharp, next tokens neither sure nor noise."""


def random_params(config: ModelConfig, backend: str, seed: int = 0) -> Params:
    """bfloat16 weights of a model as `load` lays them out; the same for a seed."""
    key = jax.random.key(seed)
    order = {name: index for index, name in enumerate(abstract_params(config))}
    shapes = abstract_params(config)

    def draw(name: str) -> jax.Array:
        shape, dtype = shapes[name].shape, shapes[name].dtype
        mean, scale = _distribution(name, shape)
        drawn = _normal(sample_key(key, order[name]), mean, scale, shape, dtype)
        return hold_for(backend, drawn)

    def stack(name: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        names = stored_names(name)
        if names == [name]:
            return draw(name)
        whole = jnp.zeros(leaf.shape, leaf.dtype)
        for at, stored in enumerate(names):
            whole = _put(whole, np.int32(at), draw(stored))
        return whole

    return {n: stack(n, leaf) for n, leaf in held_params(config, backend).items()}


def held_params(config: ModelConfig, backend: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of `random_params`, with nothing made."""
    dtype = held_dtype(backend, jnp.bfloat16)
    return abstract_params(config, dtype, layers=default_layers(backend))


@partial(jax.jit, donate_argnums=0)
def _put(stack, at, layer):
    return jax.lax.dynamic_update_index_in_dim(stack, layer, at, 0)


@partial(jax.jit, static_argnums=(3, 4))
def _normal(key, mean, scale, shape, dtype):
    return (mean + scale * jax.random.normal(key, shape)).astype(dtype)


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a weight's values.

    A layer's output projection [D, H, A] sums over heads, the others over the last
    axis alone.
    """
    if name.endswith("norm.scale"):
        return 1.0, 0.1
    if name.startswith("embed.") or name.endswith(".bias"):
        return 0.0, 1.0
    fan_in = math.prod(shape[1:]) if name.endswith("mixer.o.weight") else shape[-1]
    gain = next((g for end, g in GAINS.items() if name.endswith(end)), 1.0)
    return 0.0, gain / math.sqrt(fan_in)
