"""Root-mean-square norm (arXiv 1910.07467)."""

import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.nn.linear import weight
from jaxmoe.ops.bf16_bits import widen
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
