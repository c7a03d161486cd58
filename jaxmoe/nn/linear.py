"""Weights with named axes, and multiplying by them."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.execution import Execution
from jaxmoe.ops import lanes
from jaxmoe.ops.bf16_bits import is_bits, widen
from jaxmoe.ops.matmul import LARGE, multiply
from jaxmoe.ops.stack import OfLayer, cut
from jaxmoe.typing import Array, Float, Num

# Bits are widened tile by tile: a tile of this many values (4 bytes each once wide)
# stays in the shared cache between widening and multiplying. Smaller tiles would stay
# in a core's own, but starting an operation costs XLA microseconds.
_TILE_VALUES = 640 << 10

_LANES_ROWS = 4
"""Rows up to which the vectorised loop beats a product of a widened weight."""


def weight(shape: tuple[int, ...], dtype, axes: tuple[str, ...]) -> nnx.Param:
    """A weight that names its logical axes; meant for `nnx.eval_shape`, so never made.

    dtype: the model's, or float32 for one that is held so in every model.
    axes: one logical axis a dimension (`jaxmoe.sharding.layout.LOGICAL_AXES`).
    """
    assert len(shape) == len(axes), (shape, axes)
    return nnx.Param(jnp.zeros(shape, dtype), axes=axes)


def project(
    x: Float[Array, "N D"], weight: Num[Array, "..."] | OfLayer, execution: Execution
) -> Float[Array, "..."]:
    """x [N, D] times weight [..., D] transposed -> [N, ...], in x's type.

    Sums in float32. A weight held as bits is widened in tiles, or, where rows are few,
    in the loop of `jaxmoe.ops.lanes`.
    """
    out_shape = weight.shape[:-1]
    matrix = weight.reshape(-1, weight.shape[-1])
    times = partial(multiply, weight_left=execution.products != "plain")
    few = x.shape[0] <= _LANES_ROWS and matrix.size >= LARGE
    if execution.products == "lanes" and few:
        out = lanes.multiply(x, matrix)
    elif is_bits(matrix) and matrix.size > 2 * _TILE_VALUES:
        out = _project_tiles(x, matrix, times)
    else:
        out = times(x, widen(matrix, x.dtype))
    return out.astype(x.dtype).reshape(x.shape[0], *out_shape)


def _project_tiles(
    x: Array, matrix: Array | OfLayer, times: Callable[[Array, Array], Array]
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
