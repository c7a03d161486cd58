"""Root-mean-square norm (arXiv 1910.07467)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.nn.linear import weight
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Float


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, computed in float32."""

    def __init__(self, size: int, eps: float, dtype, axis: str):
        self.eps = eps
        self.scale = weight((size,), dtype, (axis,))

    def __call__(self, x: Float[Array, "*N D"]) -> Float[Array, "*N D"]:
        """`x` normed, in its own type."""
        wide = x.astype(jnp.float32)
        mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        normed = (wide * lax.rsqrt(mean_square + self.eps)).astype(x.dtype)
        scale = widen(self.scale[...], x.dtype)
        return jnp.expand_dims(scale, tuple(range(x.ndim - 1))) * normed


class ProjectionNorm(nnx.Module):
    """RMS norm over all heads of a row together, as over the projection they are of."""

    def __init__(self, heads: int, width: int, eps: float, dtype, axis: str):
        self.eps, self.heads = eps, heads
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
        normed = (wide * lax.rsqrt(mean_square + self.eps)).astype(x.dtype)
        return widen(self.scale[...], x.dtype)[None] * normed
