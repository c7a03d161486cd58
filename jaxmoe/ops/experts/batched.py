"""The differentiable path on CPU: one batched product over blocks of sorted rows.

(row, place) pairs are sorted by expert and cut into blocks of one expert each, as in
`jaxmoe.ops.experts.blocks`, but all blocks are multiplied at once, each by its own
copy of its expert. That copies weights, which decoding cannot afford, and can be
differentiated, which the loop cannot.
"""

import jax.numpy as jnp

from jaxmoe.ops.activations import Activation
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts.bias import ExpertBias
from jaxmoe.ops.grouping import cut_blocks
from jaxmoe.ops.matmul import precision_for
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import take
from jaxmoe.typing import Array, Float, Int, Num


def block_size(pairs: int, num_experts: int) -> int:
    """Rows of a block: a power of two, about half of what one expert gets."""
    share = max(1, pairs // (2 * num_experts))
    return min(128, 1 << (share - 1).bit_length())


def apply_batched(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"] | Packed,
    down: Num[Array, "E D F"] | Packed,
    activation: Activation,
    bias: ExpertBias | None,
) -> Float[Array, "N D"]:
    """See `jaxmoe.ops.experts.apply_experts`."""
    num_rows, width = experts.shape
    num_experts, _, hidden, model = gate_up.shape
    pairs = num_rows * width
    size = block_size(pairs, num_experts)
    blocks = cut_blocks(experts.reshape(-1), num_experts, size)
    place = blocks.start[:, None] + jnp.arange(size, dtype=jnp.int32)[None, :]
    exists = jnp.arange(blocks.start.shape[0]) < blocks.count
    filled = (place < blocks.stop[:, None]) & exists[:, None]
    pair = blocks.order[jnp.minimum(place, pairs - 1)]
    both = widen(take(gate_up, blocks.group), x.dtype).reshape(-1, 2 * hidden, model)
    gated = _multiply(x[pair // width], both)
    if bias is not None:
        gated += widen(bias.gate_up[blocks.group]).reshape(-1, 1, 2 * hidden)
    act = activation(gated[:, :, :hidden], gated[:, :, hidden:])
    last = widen(take(down, blocks.group), x.dtype)
    out = _multiply(act.astype(x.dtype), last)
    if bias is not None:
        out += widen(bias.down[blocks.group])[:, None]
    out = out.reshape(-1, model)
    # Where each pair's result stands, so that a row gathers its own: a row's sum then
    # does not depend on the order of other rows.
    found = jnp.zeros(pairs, jnp.int32)
    results = jnp.arange(pair.size, dtype=jnp.int32).reshape(pair.shape)
    found = found.at[jnp.where(filled, pair, pairs)].set(results, mode="drop")
    chosen = experts[:, :, None] >= 0
    parts = out[found].reshape(num_rows, width, model)
    # Masked on both sides of the product: 0 * NaN is NaN, in gradients too.
    parts = jnp.where(chosen, parts, 0.0) * jnp.where(chosen, weights[:, :, None], 0.0)
    return parts.sum(axis=1).astype(x.dtype)


def _multiply(x: Float[Array, "X B I"], weight: Float[Array, "X O I"]) -> Array:
    """Each block by its own matrix, float32 [X, B, O]."""
    return jnp.einsum(
        "xbi,xoi->xbo",
        x,
        weight,
        precision=precision_for(x.dtype),
        preferred_element_type=jnp.float32,
    )
