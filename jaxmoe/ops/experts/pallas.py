"""Decoding on GPUs: two kernels over blocks of sorted rows; prompts go elsewhere.

(row, place) pairs are sorted by expert and cut into blocks of one expert each, as in
`jaxmoe.ops.experts.blocks`. One program computes a tile of a block's result and steps
through its sum in a fixed order:

    act[block, :, tile of F] = activation(x @ gate[tile].T, x @ up[tile].T)
    out[block, :, tile of D] = act[block] @ down[tile].T

So an expert's weights are read once for each of its blocks, which is once in all where
no more than 16 rows chose it, and never where nobody did. Tiles depend on widths and
types alone, not on the number of rows.

Written for Pallas's Triton backend: CUDA, compute capability 8.0 or later. On CPU the
kernels are interpreted, slowly, for tests.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jaxmoe.ops.activations import Activation
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts.bias import ExpertBias
from jaxmoe.ops.experts.ragged import apply_ragged
from jaxmoe.ops.grouping import block_members, cut_blocks
from jaxmoe.ops.matmul import precision_for
from jaxmoe.typing import Array, Float, Int, Num

BLOCK = 16
"""Rows of a block: the fewest that tensor cores multiply."""

MOST_ROWS = 256
"""With more rows an expert has several blocks, each of which reads its weights anew: a
grouped product reads them once."""

TILE = 32
"""Rows of a weight matrix that a program multiplies by.

Few, so that a single row of x already gives every multiprocessor work.
"""

_STEP_BYTES = 256  # of a weight's row that are read at a time: two cache lines
_PARAMS = triton.CompilerParams(num_warps=4, num_stages=3)


def apply_pallas(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"],
    down: Num[Array, "E D F"],
    activation: Activation,
    bias: ExpertBias | None,
) -> Float[Array, "N D"]:
    """See `jaxmoe.ops.experts.apply_experts`; with many rows it is `apply_ragged`.

    For CUDA and CPU; without a gradient.
    """
    num_rows, width = experts.shape
    if num_rows > MOST_ROWS:
        return apply_ragged(x, experts, weights, gate_up, down, activation, bias)
    num_experts, model, _ = down.shape
    pairs = num_rows * width
    blocks = cut_blocks(experts.reshape(-1), num_experts, BLOCK)
    members = jax.vmap(lambda index: block_members(blocks, index, BLOCK))
    pair, filled = members(jnp.arange(blocks.group.size, dtype=jnp.int32))
    # Chosen where the program is lowered, for the platform that it is lowered for.
    out = lax.platform_dependent(
        blocks.count[None],
        blocks.group,
        pair // width,
        x,
        gate_up,
        down,
        bias,
        cpu=partial(_multiply_blocks, activation=activation, interpret=True),
        cuda=partial(_multiply_blocks, activation=activation, interpret=False),
    )
    # Where each pair's result stands, so that a row gathers its own: a row's sum then
    # does not depend on the order of other rows.
    found = jnp.zeros(pairs, jnp.int32)
    results = jnp.arange(pair.size, dtype=jnp.int32).reshape(pair.shape)
    found = found.at[jnp.where(filled, pair, pairs)].set(results, mode="drop")
    parts = out.reshape(-1, model)[found].reshape(num_rows, width, model)
    # What an empty place has gathered may never have been written.
    parts = jnp.where(experts[:, :, None] >= 0, parts * weights[:, :, None], 0.0)
    return parts.sum(axis=1).astype(x.dtype)


def tile_size(width: int, limit: int) -> int:
    """The power of two that covers `width`, from 16, a product's least, to `limit`.

    What lies past the edge is masked: width 24 has one tile of 32, width 40 two.
    """
    return min(limit, max(16, 1 << (width - 1).bit_length()))


def _multiply_blocks(
    count: Int[Array, "1"],
    group: Int[Array, "X"],
    row: Int[Array, "X B"],
    x: Float[Array, "N D"],
    gate_up: Num[Array, "E 2 F D"],
    down: Num[Array, "E D F"],
    bias: ExpertBias | None,
    *,
    activation: Activation,
    interpret: bool,
) -> Float[Array, "X B D"]:
    """Each block through its expert; blocks from `count` on are not written."""
    num_blocks, size = row.shape
    _, model, hidden = down.shape
    step_limit = _STEP_BYTES // jnp.dtype(x.dtype).itemsize

    def call(kernel, inner, width, dtype):
        tile = tile_size(width, TILE)
        return pl.pallas_call(
            partial(kernel, step=tile_size(inner, step_limit)),
            grid=(num_blocks, pl.cdiv(width, tile)),
            out_specs=pl.BlockSpec(
                (None, size, tile), lambda block, at: (block, 0, at)
            ),
            out_shape=jax.ShapeDtypeStruct((num_blocks, size, width), dtype),
            compiler_params=_PARAMS,
            interpret=interpret,
        )

    # Gate and up of expert e are matrices 2 e and 2 e + 1.
    both = gate_up.reshape(-1, hidden, model)
    first, last = ((), ()) if bias is None else ((bias.gate_up,), (bias.down,))
    first = tuple(b.reshape(-1, hidden) for b in first)
    kernel = partial(_gate_up_kernel, activation=activation)
    act = call(kernel, model, hidden, x.dtype)(count, group, row, x, both, *first)
    kernel = _down_kernel
    return call(kernel, hidden, model, jnp.float32)(count, group, act, down, *last)


# -- kernels: inputs are whole arrays, left where they are; out is one tile ------------
#    A bias is an input of experts that have one.


def _gate_up_kernel(count, group, row, x, gate_up, *bias_and_out, activation, step):
    """out [B, tile of F] = activation(gate, up) of one block."""
    *bias, out = bias_and_out
    block, at = pl.program_id(0), pl.program_id(1)
    hidden, model = gate_up.shape[1:]
    shape = (out.shape[1], step)

    @pl.when(block < count[0])
    def _():
        gate_index = 2 * group[block]
        rows = row[block, :][:, None]

        def add(index, sums):
            columns = index * step + jnp.arange(step, dtype=jnp.int32)
            x_tile = _load(x.at[rows, columns[None, :]], _inside(index, step, model, 1))
            gate = _weight_tile(gate_up, gate_index, (at, index), shape)
            up = _weight_tile(gate_up, gate_index + 1, (at, index), shape)
            return sums[0] + _multiply(x_tile, gate), sums[1] + _multiply(x_tile, up)

        zeros = jnp.zeros(out.shape, jnp.float32)
        gate, up = lax.fori_loop(0, pl.cdiv(model, step), add, (zeros, zeros))
        for ref in bias:
            gate += _bias_tile(ref, gate_index, at, shape[0])
            up += _bias_tile(ref, gate_index + 1, at, shape[0])
        _store(out, activation(gate, up), _inside(at, shape[0], hidden, 1))


def _down_kernel(count, group, act, down, *bias_and_out, step):
    """out [B, tile of D] = act @ down of one block."""
    *bias, out = bias_and_out
    block, at = pl.program_id(0), pl.program_id(1)
    model, hidden = down.shape[1:]
    shape = (out.shape[1], step)

    @pl.when(block < count[0])
    def _():
        expert = group[block]

        def add(index, total):
            columns = pl.ds(index * step, step)
            act_tile = _load(act.at[block, :, columns], _inside(index, step, hidden, 1))
            tile = _weight_tile(down, expert, (at, index), shape)
            return total + _multiply(act_tile, tile)

        zeros = jnp.zeros(out.shape, jnp.float32)
        total = lax.fori_loop(0, pl.cdiv(hidden, step), add, zeros)
        for ref in bias:
            total += _bias_tile(ref, expert, at, shape[0])
        _store(out, total, _inside(at, shape[0], model, 1))


def _weight_tile(ref, matrix, at, shape):
    """Of one matrix the tile of this shape that is number `at` in each direction."""
    row, column = (
        pl.ds(index * size, size) for index, size in zip(at, shape, strict=True)
    )
    rows = _inside(at[0], shape[0], ref.shape[1], 0)
    columns = _inside(at[1], shape[1], ref.shape[2], 1)
    mask = columns if rows is None else rows if columns is None else rows & columns
    return _load(ref.at[matrix, row, column], mask)


def _bias_tile(ref, vector, at, size):
    """Of one vector tile number `at`, float32 [1, size]."""
    inside = _inside(at, size, ref.shape[1], 1)
    mask = None if inside is None else inside[0]
    return widen(_load(ref.at[vector, pl.ds(at * size, size)], mask))[None, :]


def _inside(index, size, width, axis):
    """Which places of tile `index` exist along `axis`; None where all do."""
    if width % size == 0:
        return None
    inside = index * size + jnp.arange(size, dtype=jnp.int32) < width
    return jnp.expand_dims(inside, 1 - axis)


def _load(view, mask):
    if mask is None:
        return view[...]
    return triton.load(view, mask=jnp.broadcast_to(mask, view.shape), other=0)


def _store(out, tile, mask):
    if mask is not None:
        mask = jnp.broadcast_to(mask, out.shape)
    triton.store(out.at[:, :], tile.astype(out.dtype), mask=mask)


def _multiply(x_tile, weight_tile):
    """x [B, step] times weight [tile, step] transposed, in float32."""
    return lax.dot_general(
        x_tile,
        widen(weight_tile, x_tile.dtype),
        (((1,), (1,)), ((), ())),
        precision=precision_for(x_tile.dtype),
        preferred_element_type=jnp.float32,
    )
