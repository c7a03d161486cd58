"""The loop over experts: the fast way on CPU.

(row, place) pairs are sorted by expert. A loop over the experts that somebody chose
slices one expert's matrices, widens them once, and multiplies its rows, a few at a
time, in a loop within. An expert that nobody chose is never read, and results are
summed for each row in the order of its experts' ranks.
"""

import jax.numpy as jnp
from jax import lax

from jaxmoe.ops.activations import Activation
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts.bias import ExpertBias
from jaxmoe.ops.grouping import cut_blocks, place_of_members
from jaxmoe.ops.matmul import contract
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, cut
from jaxmoe.typing import Array, Float, Int, Num


def rows_at_once(rows: int) -> int:
    """Rows of one expert that are multiplied together.

    More where an expert gets more, but a product with 2 to 4 columns costs a CPU as
    much as two with one, and one with 8 twice as much, whether filled or not.
    """
    return 1 if rows <= 16 else 4 if rows <= 32 else 8 if rows <= 256 else 16


def apply_blocks(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"] | OfLayer | Packed,
    down: Num[Array, "E D F"] | OfLayer | Packed,
    activation: Activation,
    bias: ExpertBias | None,
) -> Float[Array, "N D"]:
    """See `jaxmoe.ops.experts.apply_experts`."""
    num_rows, width = experts.shape
    num_experts, _, hidden, model = gate_up.shape
    pairs, size = num_rows * width, rows_at_once(num_rows)
    # One block for each chosen expert, with all its pairs.
    blocks = cut_blocks(experts.reshape(-1), num_experts, pairs)

    def one_expert(index, results):
        expert, start = blocks.group[index], blocks.start[index]
        both, last = (widen(cut(w, expert, 1), x.dtype)[0] for w in (gate_up, down))
        # Without the barrier XLA would widen again for every product.
        both, last = lax.optimization_barrier((both.reshape(2 * hidden, model), last))
        own = None
        if bias is not None:
            first, second = (widen(cut(part, expert, 1)[0]) for part in bias)
            own = first.reshape(2 * hidden, 1), second[None]

        def some_rows(turn, results):
            first = start + turn * size
            place = first + jnp.arange(size, dtype=jnp.int32)
            pair = blocks.order[jnp.minimum(place, pairs - 1)]
            result = _expert(x[pair // width], both, last, activation, own)
            # What is not filled spills over the next expert's places, which are
            # computed later and overwrite it.
            return lax.dynamic_update_slice_in_dim(results, result, first, axis=0)

        turns = (blocks.stop[index] - start + size - 1) // size
        return lax.fori_loop(0, turns, some_rows, results)

    results = jnp.zeros((pairs + size, model), jnp.float32)
    results = lax.fori_loop(0, blocks.count, one_expert, results)
    place = place_of_members(blocks)
    parts = results[place].reshape(num_rows, width, model) * weights[:, :, None]
    # Summed in rank order: no row's sum depends on what others chose.
    parts = jnp.where(experts[:, :, None] >= 0, parts, 0.0)
    return parts.sum(axis=1).astype(x.dtype)


def _expert(
    rows: Array,
    gate_up: Array,
    down: Array,
    activation: Activation,
    bias: tuple[Array, Array] | None,
) -> Array:
    """One expert, matrices [2F, D] and [D, F], of rows [B, D]: float32 [B, D].

    bias: its own, [2F, 1] and [1, D], or None.
    """
    hidden = down.shape[1]
    gated = contract(gate_up, rows, 1, 1)
    if bias is not None:
        gated += bias[0]
    act = activation(gated[:hidden], gated[hidden:]).astype(rows.dtype)
    # The barrier keeps XLA from folding the transpose into the product, which is
    # slower with the weight on the right (`jaxmoe.ops.matmul`).
    out = lax.optimization_barrier(contract(down, act, 1, 0)).T
    return out if bias is None else out + bias[1]
