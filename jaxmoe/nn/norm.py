"""Root-mean-square norm (arXiv 1910.07467)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.config import NormConfig
from jaxmoe.nn.linear import weight
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.stack import OfLayer
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Float, Num


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, computed in float32."""

    def __init__(self, size: int, config: NormConfig, dtype, axis: str):
        self.config = config
        self.scale = weight((size,), dtype, (axis,))

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """`x` normed, in its own type."""
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        normed = wide * lax.rsqrt(mean_square + self.config.eps)
        return _scaled(normed, self.scale[...], self.config, x.dtype)


class ProjectionNorm(nnx.Module):
    """RMS norm over all heads of a row together, as over the projection they are of."""

    def __init__(self, heads: int, width: int, config: NormConfig, dtype, axis: str):
        self.config, self.heads = config, heads
        self.scale = weight((heads, width), dtype, (axis, "head_dim"))

    def __call__(
        self, x: Float[Array, "N H A"], device: DeviceContext
    ) -> Float[Array, "N H A"]:
        """`x` normed, in its own type; heads of other devices count as well."""
        wide = x.astype(jnp.float32)
        width = self.heads * x.shape[-1]
        if device.axes("heads"):
            squares = device.sum_ordered((wide * wide).sum(axis=(1, 2)), "heads")
            # A head that lies on several devices was counted on each.
            copies = device.count("heads") * x.shape[1] // self.heads
            mean_square = squares[:, None, None] / (width * copies)
        else:
            flat = wide.reshape(x.shape[0], width)
            mean_square = jnp.mean(flat * flat, axis=-1)[:, None, None]
        normed = wide * lax.rsqrt(mean_square + self.config.eps)
        return _scaled(normed, self.scale[...], self.config, x.dtype)


def _scaled(
    normed: Float[Array, "*N D"],
    scale: Num[Array, "..."] | OfLayer,
    config: NormConfig,
    dtype,
) -> Float[Array, "*N D"]:
    """float32 `normed` times the scale of its last axes, as `dtype`."""
    # Where the type is float32 the order of cast and product is all the same.
    wide = config.cast == "last"
    scale = widen(scale, jnp.float32 if wide else dtype)
    if config.offset:
        scale += config.offset
    normed = normed if wide else normed.astype(dtype)
    lead = tuple(range(normed.ndim - scale.ndim))
    return (jnp.expand_dims(scale, lead) * normed).astype(dtype)
