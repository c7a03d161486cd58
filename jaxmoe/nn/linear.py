"""Weights with named axes, and multiplying by them."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.execution import Execution
from jaxmoe.ops import lanes
from jaxmoe.ops.bf16_bits import is_bits, widen
from jaxmoe.ops.matmul import LARGE, multiply, precision_for
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, cut, piece
from jaxmoe.typing import Array, Float, Num

# Bits are widened tile by tile: a tile of this many values (4 bytes each once wide)
# stays in the shared cache between widening and multiplying. Smaller tiles would stay
# in a core's own, but starting an operation costs XLA microseconds.
_TILE_VALUES = 640 << 10

_LANES_ROWS = 4
"""Rows up to which the vectorised loop beats a product of a widened weight."""


def weight(
    shape: tuple[int, ...], dtype, axes: tuple[str, ...], *, inputs: int = 0
) -> nnx.Param:
    """A weight that names its logical axes; meant for `nnx.eval_shape`, so never made.

    Args:
      shape, dtype: of the array; the model's type, or one that is held so in every
        model.
      axes: one logical axis a dimension (`jaxmoe.sharding.layout.LOGICAL_AXES`).
      inputs: how many axes, the last ones, a product by it sums over. A model of
        quantised weights (`ModelConfig.weights`) has a scale for each output. 0 for
        what is no product, or too delicate: it keeps its type.
    """
    assert len(shape) == len(axes), (shape, axes)
    return nnx.Param(jnp.zeros(shape, dtype), axes=axes, inputs=inputs)


def project(
    x: Float[Array, "N D"],
    weight: Num[Array, "..."] | OfLayer | Packed,
    execution: Execution,
) -> Float[Array, "..."]:
    """x [N, D] times weight [..., D] transposed -> [N, ...], in x's type.

    Sums in float32. A weight held as bits, or packed, is widened in tiles, or, where
    rows are few, in the loop of `jaxmoe.ops.lanes`.
    """
    out_shape = weight.shape[:-1]
    matrix = weight.reshape(-1, weight.shape[-1])
    times = partial(multiply, weight_left=execution.products != "plain")
    few = x.shape[0] <= _LANES_ROWS and matrix.size >= LARGE
    # On accelerators a loop would be many small operations.
    packed = isinstance(matrix, Packed) and execution.products != "plain"
    if execution.products == "lanes" and few:
        out = lanes.multiply(x, matrix)
    elif (packed or is_bits(matrix)) and matrix.size > 2 * _TILE_VALUES:
        out = _project_tiles(x, matrix, times)
    else:
        out = times(x, widen(matrix, x.dtype))
    return out.astype(x.dtype).reshape(x.shape[0], *out_shape)


def _project_tiles(
    x: Array, matrix: Array | OfLayer | Packed, times: Callable[[Array, Array], Array]
) -> Array:
    rows, columns = matrix.shape
    tile = _tile_rows(rows, max(1, _TILE_VALUES // columns))
    full = rows // tile

    def one(index, out):
        part = widen(cut(matrix, index * tile, tile), x.dtype)
        return lax.dynamic_update_slice_in_dim(
            out, times(x, part), index * tile, axis=1
        )

    out = jnp.zeros((x.shape[0], rows), jnp.float32)
    out = lax.fori_loop(0, full, one, out)
    if rows % tile:
        rest = widen(cut(matrix, full * tile, rows % tile), x.dtype)
        out = lax.dynamic_update_slice_in_dim(out, times(x, rest), full * tile, axis=1)
    return out


def _tile_rows(rows: int, most: int) -> int:
    """Rows of a tile: a divisor of `rows` where one lies in most / 2 .. most."""
    divisors = (n for n in range(min(rows, most), most // 2, -1) if rows % n == 0)
    return next(divisors, min(rows, most))


def project_heads(
    x: Float[Array, "N H X"],
    weight: Num[Array, "H M K"] | OfLayer | Packed,
    *,
    rows: tuple[int, int],
    over: Literal["rows", "columns"],
) -> Float[Array, "N H Y"]:
    """Each head's vector times some rows of its own matrix, in x's type.

    Sums in float32. A weight held as bits, or packed, is widened some heads at a time.

    Args:
      x: of each head, as many values as rows take part, or K.
      weight: a matrix [M, K] a head.
      rows: the first of M that takes part, and how many do.
      over: what is summed over: "rows" gives [N, H, K], "columns" [N, H, rows].
    """
    heads, _, width = weight.shape
    first, count = rows
    axis = 1 if over == "rows" else 2

    def some(head: Array | int, number: int) -> Array:
        if isinstance(weight, Packed):
            matrices = widen(weight.cut(head, number), x.dtype)
            matrices = matrices[:, first : first + count]
        else:
            matrices = piece(weight, (head, first, 0), (number, count, width))
            matrices = widen(matrices, x.dtype)
        own = lax.dynamic_slice_in_dim(x, head, number, axis=1)
        out = lax.dot_general(
            own,
            matrices,
            (((2,), (axis,)), ((1,), (0,))),
            precision=precision_for(x.dtype),
            preferred_element_type=jnp.float32,
        )
        return out.swapaxes(0, 1).astype(x.dtype)

    narrow = isinstance(weight, Packed) or is_bits(weight)
    if not narrow or heads * count * width <= 2 * _TILE_VALUES:
        return some(0, heads)
    most = max(1, _TILE_VALUES // (count * width))
    number = next(n for n in range(min(heads, most), 0, -1) if heads % n == 0)

    def next_heads(index: Array, out: Array) -> Array:
        found = some(index * number, number)
        return lax.dynamic_update_slice_in_dim(out, found, index * number, axis=1)

    out = jnp.zeros((*x.shape[:2], width if over == "rows" else count), x.dtype)
    return lax.fori_loop(0, heads // number, next_heads, out)
