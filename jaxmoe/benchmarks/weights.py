"""Random weights, made on the device tensor by tensor, as a checkpoint's are held."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from jaxmoe.config import ModelConfig
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.ops.bf16_bits import hold_for
from jaxmoe.random.keys import sample_key
from jaxmoe.typing import Params

GAINS = {"router.weight": 2.5, "head.weight": 3.0}
"""Over 1 / sqrt(fan-in): routers that are sharp, next tokens neither sure nor noise."""


def random_params(config: ModelConfig, backend: str, seed: int = 0) -> Params:
    """bfloat16 weights of a model; the same for the same seed."""
    key = jax.random.key(seed)
    params = {}
    for index, (name, leaf) in enumerate(abstract_params(config).items()):
        mean, scale = _distribution(name, leaf.shape)
        drawn = _normal(sample_key(key, index), mean, scale, leaf.shape, leaf.dtype)
        params[name] = hold_for(backend, drawn)
    return params


def held_params(config: ModelConfig, backend: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of `random_params`, with nothing made."""
    dtype = jnp.uint16 if backend == "cpu" else jnp.bfloat16
    shapes = abstract_params(config).items()
    return {name: jax.ShapeDtypeStruct(leaf.shape, dtype) for name, leaf in shapes}


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
