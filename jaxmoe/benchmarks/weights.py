"""Random weights, made on the device tensor by tensor, as a checkpoint's are held."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import Fp8Weights, LayerConfig, ModelConfig, MoEConfig
from jaxmoe.execution import default_layers
from jaxmoe.nn.decoder import abstract_params, products
from jaxmoe.nn.segments import stored_names
from jaxmoe.ops import fp8, mxfp4
from jaxmoe.ops.bf16_bits import held_dtype, hold_for
from jaxmoe.ops.packed import SCALES
from jaxmoe.random.keys import sample_key
from jaxmoe.typing import Params

Packing = Literal["fp8", "mxfp4"]
"""How weights are released that are no floats."""

GAINS = {"router.weight": 2.5, "head.weight": 3.0}
"""Over 1 / sqrt(fan-in): routers that are sharp, next tokens neither sure nor noise."""


def random_params(config: ModelConfig, backend: str, seed: int = 0) -> Params:
    """bfloat16 weights of a model as `load` lays them out; the same for a seed.

    Packed ones are random bytes under one scale.
    """
    key = jax.random.key(seed)
    order = {name: index for index, name in enumerate(abstract_params(config))}
    shapes = abstract_params(config)

    def draw(name: str) -> jax.Array:
        shape, dtype = shapes[name].shape, shapes[name].dtype
        if dtype == jnp.uint8 and not name.endswith(SCALES):
            return _bytes(sample_key(key, order[name]), shape)
        if name.endswith(SCALES):
            return jnp.full(shape, _scale(name, shapes), dtype)
        mean, scale = (0, 1) if dtype == fp8.DTYPE else _distribution(name, shape)
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


def packed_as(config: ModelConfig, weights: Packing) -> ModelConfig:
    """The model with weights that are released so: "fp8" all products, or experts."""
    if weights == "fp8":
        names = tuple(sorted(products(config)))
        return replace(config, weights=Fp8Weights((128, 128), names))

    def packed(layer: LayerConfig) -> LayerConfig:
        ff = layer.feed_forward
        if isinstance(ff, MoEConfig):
            ff = replace(ff, weights=weights)
        return replace(layer, feed_forward=ff)

    return replace(config, layers=tuple(map(packed, config.layers)))


def held_params(config: ModelConfig, backend: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types of `random_params`, with nothing made."""
    dtype = held_dtype(backend, jnp.bfloat16)
    return abstract_params(config, dtype, layers=default_layers(backend))


@partial(jax.jit, donate_argnums=0)
def _put(stack, at, layer):
    return jax.lax.dynamic_update_index_in_dim(stack, layer, at, 0)


@partial(jax.jit, static_argnums=1)
def _bytes(key, shape):
    return jax.random.bits(key, shape, jnp.uint8)


def _scale(name: str, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> float:
    """What gives packed values the standard deviation that floats would have."""
    bank = name.removesuffix(SCALES)
    if bank in shapes:  # of FP8, drawn with a standard deviation of 1
        return _distribution(bank, shapes[bank].shape)[1]
    blocks = shapes[f"{bank}.blocks"].shape
    width = blocks[-2] * mxfp4.BLOCK
    return round(127 - math.log2(_E2M1 * math.sqrt(width)))


_E2M1 = 2.93
"""Root mean square of the 16 values of MXFP4."""


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
    outputs = ("mixer.o.weight", "mixer.out.weight")
    fan_in = math.prod(shape[1:]) if name.endswith(outputs) else shape[-1]
    gain = next((g for end, g in GAINS.items() if name.endswith(end)), 1.0)
    return 0.0, gain / math.sqrt(fan_in)
