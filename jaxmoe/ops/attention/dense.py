"""Attention of whole sequences with gradients, for training."""

import jax

from jaxmoe.ops.attention.chunked import QKV
from jaxmoe.typing import Array, Float


def attend_causal(qkv: QKV, *, window: int | None) -> Float[Array, "T H A"]:
    """Attention within one sequence of T positions, each seeing itself and before."""
    local = None if window is None else (window - 1, 0)
    return jax.nn.dot_product_attention(*qkv, is_causal=True, local_window_size=local)
