"""Products of few rows in one loop that reads weights straight into multiply-adds.

On CPU, XLA hands a product to a library, which wants bfloat16 weights as a float32
copy. Written as a sum of terms instead, one for each cache line of the contracted axis,
it becomes a loop that LLVM vectorises across the line: a vector of bfloat16 bits is
widened in a register and multiplied there.

    sum_i w[o, i] x[i] = sum_lane sum_line w[o, line, lane] x[line, lane]

Two sums that share a load (two rows of one weight, or two weights of one row) are the
real and the imaginary part of one complex sum. XLA's older emitter
(`jaxmoe.ops.emitters`) allows such a sum to be reordered, as no sum over several
results can be. No sum of one part meets the other, so a NaN stays in its row.

`vector_width` looks whether XLA makes that of it.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmoe.ops import emitters
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, piece
from jaxmoe.typing import Array, Float, Leaf, Num, pytree

LINE_BYTES = 64
"""Of a cache line: what one term reads of each row of a weight. With more, or less,
the first passes over a row do not announce all its lines to the prefetcher."""

CODE: emitters.CompilerOptions = (("xla_dump_emitter_re", ".*"),)
"""XLA's option that has it dump LLVM's code, where it does not do so without."""

MOST_TERMS = 64
"""Terms of one sum; a longer axis is cut, as the code of a loop grows with them."""

TILE_ROWS = 1024
"""Rows of a weight that are multiplied at a time: a tile of them, and what is shared
among threads, stays in a core's cache for the next pair of rows."""


def multiply_rows(
    rows: Float[Array, "R I"],
    stack: Num[Array, "X Y I"] | OfLayer | Packed,
    index: Array | int,
    *,
    start: Array | int = 0,
    size: int | None = None,
) -> Float[Array, "R O"]:
    """`rows` times `stack[index]` transposed, float32.

    Args:
      rows: One or two, of any float type. More would take several loops, and LLVM
        may add up in another order in each: a row would feel its place.
      stack: Matrices of any float type, or bfloat16 bits, or packed ones that the
        loop can read.
      index: Which; clamped where there is no such matrix, as of `lax.dynamic_slice`.
      start, size: Of which rows of it; all where no size is given.
    """
    rows = rows.astype(jnp.float32)
    count, out = rows.shape[0], stack.shape[1] if size is None else size
    assert count in (1, 2), rows.shape
    if count == 1 and out % 2 == 0:
        half, twice = out // 2, (rows[0], rows[0])
        halves = _two_sums(stack, index, (start, start + half), half, twice)
        found = jnp.concatenate(halves)[None]
    else:
        sums = _two_sums(stack, index, (start, start), out, (rows[0], rows[-1]))
        found = jnp.stack(sums[:count])
    return stack.finished(found, index, start) if isinstance(stack, Packed) else found


def multiply(
    x: Float[Array, "N D"], weight: Num[Array, "O D"] | OfLayer | Packed
) -> Float[Array, "N O"]:
    """x times `weight` transposed, float32: each tile of the weight by each two rows.

    In a loop, for else XLA would fuse what stands around into the sums, and compile
    others for every two rows.
    """
    (out, width), rows = weight.shape, x.shape[0]
    together = min(rows, 2)
    pairs = -(-rows // together)
    # Two tiles at least: a loop of one turn is none. Of an even number of rows, so
    # that a single row can take half of them with the other half.
    tile = min(TILE_ROWS, max(1, out // 4 * 2))
    matrix = weight.reshape(1, out, width)

    def one_turn(index: Array, found: Array) -> Array:
        index = emitters.outside_a_kernel(index, tile * width)
        # The last tile, and the last rows, may repeat some of those before them.
        start = jnp.minimum(index // pairs * tile, out - tile)
        row = jnp.minimum(index % pairs * together, rows - together)
        some = lax.optimization_barrier(lax.dynamic_slice_in_dim(x, row, together))
        part = multiply_rows(some, matrix, 0, start=start, size=tile)
        return lax.dynamic_update_slice(found, part, (row, start))

    found = jnp.zeros((rows, out), jnp.float32)
    return lax.fori_loop(0, -(-out // tile) * pairs, one_turn, found)


def _two_sums(
    stack: Array | OfLayer | Packed,
    index: Array | int,
    starts: tuple[Array | int, Array | int],
    size: int,
    rows: tuple[Array, Array],
) -> list[Array]:
    """Of two rows, each its products with `size` rows of the matrix from a start on.

    starts: one for each row. The same one twice is one load for both.
    """
    packed = isinstance(stack, Packed)
    lanes = stack.lanes if packed else LINE_BYTES // stack.dtype.itemsize
    inputs, tail = stack.shape[2], stack.tail if packed else 0
    cuts = _cuts(inputs - tail, lanes)
    if tail:
        cuts.append((range(inputs - tail, inputs, tail // 2), tail // 2))
    where = _Where(stack, index, starts, rows, one_load=starts[0] is starts[1])
    sums = _by_calls if emitters.by_calls() else _in_program
    total = sums(where, size, cuts)
    return [total.real, total.imag]


@pytree("one_load")
@dataclass(frozen=True)
class _Where:
    """What a complex sum is of: see `_two_sums`. one_load: both starts are the same."""

    stack: Leaf | OfLayer | Packed
    index: Leaf | int
    starts: tuple[Leaf | int, Leaf | int]
    rows: tuple[Leaf, Leaf]
    one_load: bool


def _in_program(where: _Where, size: int, cuts: list[tuple[range, int]]) -> Array:
    """complex64 [size]: sums that are part of the program around them."""
    found = [
        lax.optimization_barrier(_sum(where, size, columns, width))
        for columns, width in cuts
    ]
    return reduce(add, found)


def _by_calls(where: _Where, size: int, cuts: list[tuple[range, int]]) -> Array:
    """complex64 [size]: each sum a call, or several that run side by side."""
    values = size * where.stack.shape[2] * (1 if where.one_load else 2)
    every = emitters.parts(size, -(-emitters.calls(values) // len(cuts)))
    found: list[Array] = []
    for columns, width in cuts:
        kernels: dict[int, Callable[..., Array]] = {}
        some = []
        for outputs in every:
            starts = (start + outputs.start for start in where.starts)
            one = jax.tree.map(_ready, replace(where, starts=tuple(starts)))
            count = len(outputs)
            if count not in kernels:
                of_part = partial(_sum, size=count, columns=columns, width=width)
                kernels[count] = emitters.kernel(of_part, one)
            some.append(kernels[count](one))
        found.append(jnp.concatenate(some))
    return lax.optimization_barrier(reduce(add, found))


def _ready(leaf: Array | int) -> Array:
    """For a call: a number is computed before it, and has no sign.

    JAX would else look in the call whether it counts from the end; what the call keeps
    of that lies where another one does, and they would run one after another.
    """
    leaf = jnp.asarray(leaf)
    if leaf.ndim:
        return leaf
    return lax.optimization_barrier(leaf.astype(jnp.uint32))


def _sum(where: _Where, size: int, columns: range, width: int) -> Array:
    """complex64 [size]: terms of two rows, so wide each, that begin at `columns`."""
    stack, terms = where.stack, None
    for first in columns:
        # Two loops have a slice each: XLA would write out one that they share.
        one = _part(stack, where.index, where.starts[0], first, size, width)
        other = one
        if not where.one_load:
            other = _part(stack, where.index, where.starts[1], first, size, width)
        those = slice(first, first + width)
        if isinstance(stack, Packed):
            those = stack.columns(first, width)
        left, right = (row[None, those] for row in where.rows)
        term = lax.complex(one * left, other * right)
        terms = term if terms is None else terms + term
    assert terms is not None
    return terms.sum(axis=-1)


def _part(
    stack: Array | OfLayer | Packed,
    index: Array | int,
    start: Array | int,
    first: int,
    size: int,
    width: int,
) -> Array:
    """float32 [size, width]: of one matrix some rows and columns."""
    if isinstance(stack, Packed):
        return stack.read(index, start, first, size, width)
    return widen(piece(stack, (index, start, first), (1, size, width))[0])


def _cuts(width: int, lanes: int) -> list[tuple[range, int]]:
    """Sums that cover an axis: where the terms of each begin, and how wide they are.

    >>> _cuts(100, 32), _cuts(4096, 32)
    ([(range(0, 96, 32), 32), (range(96, 97), 4)],
     [(range(0, 2048, 32), 32), (range(2048, 4096, 32), 32)])
    """
    whole, step = width - width % lanes, MOST_TERMS * lanes
    cuts = [
        (range(first, min(first + step, whole), lanes), lanes)
        for first in range(0, whole, step)
    ]
    if whole < width:
        cuts.append((range(whole, whole + 1), width - whole))
    return cuts


# -- what XLA makes of it ------------------------------------------------------------


def vector_width(
    options: emitters.CompilerOptions | None = None, values: int = 128
) -> int:
    """Floats that one instruction of the loop multiplies and adds, 1 if it is scalar.

    Compiles a small product for this machine's CPU, and reads what LLVM was left with.

    Args:
      options: XLA's; None for those that the loop is made for.
      values: of a row.

    Raises:
      RuntimeError: XLA has no such option, or cannot compile the loop.
    """
    cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    # A constant that is never the same: a program from a cache would leave no code.
    salt = np.random.default_rng().random(dtype=np.float32)

    def product(rows: Array, stack: Array) -> Array:
        return multiply_rows(rows, stack, 0) + salt

    shapes = (((2, values), np.float32), ((1, 64, values), np.uint16))
    arguments = [jax.ShapeDtypeStruct(*s, sharding=cpu) for s in shapes]
    given = emitters.options() if options is None else options
    chosen = dict((*given, *emitters.accepted(CODE)))
    with tempfile.TemporaryDirectory() as folder:
        chosen["xla_dump_to"] = folder
        jax.jit(product, compiler_options=chosen).lower(*arguments).compile()
        code = [
            path.read_text("utf-8", "replace")
            for path in Path(folder).glob("*with-opt.ll")
        ]
    widths = re.findall(r"= fmul [a-z ]*<(\d+) x float>", "\n".join(code))
    return max(map(int, widths), default=1)
