"""The block loop: the fast way on CPU.

(row, place) pairs are sorted by expert and cut into blocks of one expert each; a loop
over the blocks that exist slices one expert's matrices, widens and multiplies. An
expert that nobody chose is never read, one chosen by many rows is read once per block.

Where rows are few an expert has one or two of them. Those are multiplied one by one,
as many as there are: a product with several columns costs a CPU several times that of
one column, filled or not.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.grouping import Blocks, block_members, cut_blocks
from jaxmoe.products import contract
from jaxmoe.typing import Array, Float, Int, Num
from jaxmoe.widen import widen

ONE_BY_ONE = 32
"""Rows up to which the members of a block are multiplied one by one."""


def block_size(rows: int) -> int:
    """Rows of a block: what one expert gets when rows spread evenly, or somewhat more.

    Multiplied one by one, a block may as well hold every row of its expert.
    """
    if rows <= ONE_BY_ONE:
        return rows
    return 8 if rows <= 128 else 16 if rows <= 512 else 64


def apply_blocks(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"],
    down: Num[Array, "E D F"],
) -> Float[Array, "N D"]:
    """See `jaxmoe.experts.apply_experts`."""
    num_rows, width = experts.shape
    num_experts, _, hidden, model = gate_up.shape
    pairs = num_rows * width
    size = block_size(num_rows)
    blocks = cut_blocks(experts.reshape(-1), num_experts, size)
    add_members = _add_each if num_rows <= ONE_BY_ONE else _add_together

    def one_block(index, results):
        expert = blocks.group[index]
        both = widen(lax.dynamic_index_in_dim(gate_up, expert, 0, False), x.dtype)
        last = widen(lax.dynamic_index_in_dim(down, expert, 0, False), x.dtype)
        # Widened once: without the barrier XLA would do it again for every product.
        matrices = lax.optimization_barrier((both.reshape(2 * hidden, model), last))
        return add_members(results, x, matrices, blocks, index, width, size)

    results = jnp.zeros((pairs + size, model), jnp.float32)
    results = lax.fori_loop(0, blocks.count, one_block, results)
    place = jnp.argsort(blocks.order)
    parts = results[place].reshape(num_rows, width, model) * weights[:, :, None]
    # Summed in rank order: no row's sum depends on what others chose.
    parts = jnp.where(experts[:, :, None] >= 0, parts, 0.0)
    return parts.sum(axis=1).astype(x.dtype)


def _add_each(
    results: Array,
    x: Array,
    matrices: tuple[Array, Array],
    blocks: Blocks,
    index: Array,
    width: int,
    size: int,
) -> Array:
    """`results` with those of the block's members, computed one by one."""

    def one_member(place, results):
        row = lax.dynamic_index_in_dim(x, blocks.order[place] // width, 0)
        result = _expert(row, *matrices)
        return lax.dynamic_update_slice_in_dim(results, result, place, axis=0)

    start = blocks.start[index]
    stop = jnp.minimum(start + size, blocks.stop[index])
    return lax.fori_loop(start, stop, one_member, results)


def _add_together(
    results: Array,
    x: Array,
    matrices: tuple[Array, Array],
    blocks: Blocks,
    index: Array,
    width: int,
    size: int,
) -> Array:
    """`results` with those of the block's members, computed in one product.

    Places of the block that are not filled spill over the next block's, which comes
    later and overwrites them.
    """
    pair, _ = block_members(blocks, index, size)
    result = _expert(x[pair // width], *matrices)
    return lax.dynamic_update_slice_in_dim(results, result, blocks.start[index], axis=0)


def _expert(rows: Array, gate_up: Array, down: Array) -> Array:
    """One expert, matrices [2F, D] and [D, F], of rows [B, D]: float32 [B, D]."""
    hidden = down.shape[1]
    gated = contract(gate_up, rows, 1, 1)
    act = (jax.nn.silu(gated[:hidden]) * gated[hidden:]).astype(rows.dtype)
    # The barrier keeps XLA from folding the transpose into the product, which is
    # slower with the weight on the right (`jaxmoe.products`).
    return lax.optimization_barrier(contract(down, act, 1, 0)).T
