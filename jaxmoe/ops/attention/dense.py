"""Attention of whole sequences with gradients, for training."""

import jax
import jax.numpy as jnp

from jaxmoe.ops.attention.chunked import QKV, scale_of, visible
from jaxmoe.typing import Array, Float


def attend_causal(
    qkv: QKV,
    *,
    window: int | None,
    scale: float | None = None,
    sinks: Float[Array, "H"] | None = None,
) -> Float[Array, "T H V"]:
    """Attention within one sequence of T positions, each seeing itself and before."""
    place = jnp.arange(qkv.q.shape[0])
    seen, bias = visible(place, place, window), None
    # One width is wanted: zeros change no product, and add columns to be cut off.
    widths = (qkv.k.shape[-1], qkv.v.shape[-1])
    q, k, v = (_padded(a, 0, max(widths)) for a in qkv)
    if sinks is not None:
        # One more key that all see: its product is 0, its value too.
        k, v = (_padded(a, 1, max(widths)) for a in (k, v))
        seen = jnp.pad(seen, ((0, 0), (0, 1)), constant_values=True)
        room = ((0, 0), (0, 0), (0, 0), (place.shape[0], 0))
        bias = jnp.pad(sinks.astype(q.dtype)[None, :, None, None], room)
    out = jax.nn.dot_product_attention(
        q, k, v, bias, seen[None, None], scale=scale_of(qkv.q, scale)
    )
    return out[..., : widths[1]]


def _padded(heads: Float[Array, "T H A"], rows: int, width: int) -> Array:
    return jnp.pad(heads, ((0, rows), (0, 0), (0, width - heads.shape[-1])))
