"""The block loop: the fast way on CPU.

(row, place) pairs are sorted by expert and cut into blocks of one expert each; a loop
over the blocks that exist slices one expert's matrices and multiplies. An expert that
nobody chose is never read, one chosen by many rows is read once per block.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.grouping import block_members, cut_blocks
from jaxmoe.products import multiply
from jaxmoe.typing import Array, Float, Int, Num
from jaxmoe.widen import widen


def block_size(rows: int) -> int:
    """Rows of a block: about what one expert gets when rows spread evenly."""
    if rows == 1:
        return 1
    if rows <= 16:
        return 4
    return 8 if rows <= 64 else 16 if rows <= 512 else 64


def apply_blocks(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"],
    down: Num[Array, "E D F"],
) -> Float[Array, "N D"]:
    """See `jaxmoe.experts.apply_experts`."""
    num_rows, width = experts.shape
    num_experts, _, hidden, _ = gate_up.shape
    size = block_size(num_rows)
    blocks = cut_blocks(experts.reshape(-1), num_experts, size)
    pair_weights = weights.reshape(-1)

    def add_block(index, out):
        pair, filled = block_members(blocks, index, size)
        row = pair // width
        expert = blocks.group[index]
        both = widen(lax.dynamic_index_in_dim(gate_up, expert, 0, False), x.dtype)
        gated = multiply(x[row], both.reshape(2 * hidden, -1))
        act = (jax.nn.silu(gated[:, :hidden]) * gated[:, hidden:]).astype(x.dtype)
        last = widen(lax.dynamic_index_in_dim(down, expert, 0, False), x.dtype)
        result = multiply(act, last) * pair_weights[pair][:, None]
        # A place that is not filled points past the last row and is dropped.
        return out.at[jnp.where(filled, row, num_rows)].add(result, mode="drop")

    out = jnp.zeros(x.shape, jnp.float32)
    return lax.fori_loop(0, blocks.count, add_block, out).astype(x.dtype)
