"""The loop over experts with products of few rows: the fast way to decode on CPU.

As in `jaxmoe.ops.experts.blocks`, but a turn takes one or two rows of an expert, whose
matrices are read as they are stored (`jaxmoe.ops.lanes`), never widened in memory.
"""

import jax.numpy as jnp
from jax import lax

from jaxmoe.ops import emitters, lanes
from jaxmoe.ops.activations import Activation
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts.bias import ExpertBias
from jaxmoe.ops.experts.blocks import apply_blocks
from jaxmoe.ops.grouping import cut_blocks, place_of_members
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, cut
from jaxmoe.typing import Array, Float, Int, Num

MOST_ROWS = 96
"""With more rows an expert gets so many that a library is faster."""

LEAST_VALUES = 1 << 16
"""Of one expert's weights: with fewer, what a turn of the loop costs is more than what
its products do, and fewer turns of more rows are faster."""


def small_experts(hidden: int, model: int) -> bool:
    """Whether experts of these sizes are too small for the loop."""
    return 3 * hidden * model < LEAST_VALUES


def rows_at_once(rows: int) -> int:
    """Rows of one expert that share a read of it: two where experts get as many."""
    return 1 if rows <= 4 else 2


def _reads(weight: Array | OfLayer | Packed) -> bool:
    """Whether the loop reads it as it lies."""
    return not isinstance(weight, Packed) or weight.lanes > 0


def apply_lanes(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"] | OfLayer | Packed,
    down: Num[Array, "E D F"] | OfLayer | Packed,
    activation: Activation,
    bias: ExpertBias | None,
) -> Float[Array, "N D"]:
    """See `jaxmoe.ops.experts.apply_experts`.

    With many rows, small experts, or packed weights that the loop cannot read, it is
    `apply_blocks`.
    """
    num_rows, width = experts.shape
    num_experts, _, hidden, model = gate_up.shape
    small = small_experts(hidden, model)
    if num_rows > MOST_ROWS or small or not (_reads(gate_up) and _reads(down)):
        return apply_blocks(x, experts, weights, gate_up, down, activation, bias)
    pairs, size = num_rows * width, rows_at_once(num_rows)
    blocks = cut_blocks(experts.reshape(-1), num_experts, size)
    both = gate_up.reshape(num_experts, 2 * hidden, model)

    def one_block(index: Array, results: Array) -> Array:
        index = emitters.outside_a_kernel(index, 2 * hidden * model)
        expert, start = blocks.group[index], blocks.start[index]
        place = start + jnp.arange(size, dtype=jnp.int32)
        pair = blocks.order[jnp.minimum(place, pairs - 1)]
        # Behind barriers: a sum would else compute its row anew for every output.
        rows = lax.optimization_barrier(x[pair // width])
        gated = lanes.multiply_rows(rows, both, expert)
        if bias is not None:
            gated += widen(cut(bias.gate_up, expert, 1)).reshape(1, 2 * hidden)
        act = activation(gated[:, :hidden], gated[:, hidden:]).astype(x.dtype)
        found = lanes.multiply_rows(lax.optimization_barrier(act), down, expert)
        if bias is not None:
            found += widen(cut(bias.down, expert, 1))
        # What is not filled spills over the next block's places, which are computed
        # later and overwrite it.
        return lax.dynamic_update_slice_in_dim(results, found, start, axis=0)

    results = jnp.zeros((pairs + size, model), jnp.float32)
    results = lax.fori_loop(0, blocks.count, one_block, results)
    parts = results[place_of_members(blocks)].reshape(num_rows, width, model)
    # Summed in rank order: no row's sum depends on what others chose.
    parts = jnp.where(experts[:, :, None] >= 0, parts * weights[:, :, None], 0.0)
    return parts.sum(axis=1).astype(x.dtype)
