"""Weights with named axes, and multiplying by them."""

import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.ops.bf16_bits import is_bits, widen
from jaxmoe.ops.matmul import multiply
from jaxmoe.typing import Array, Float, Num

# Bits are widened tile by tile: a tile of this many values (4 bytes each once wide)
# stays in the shared cache between widening and multiplying. Smaller tiles would stay
# in a core's own, but starting an operation costs XLA microseconds.
_TILE_VALUES = 640 << 10


def weight(shape: tuple[int, ...], dtype, axes: tuple[str, ...]) -> nnx.Param:
    """A weight that names its logical axes; meant for `nnx.eval_shape`, so never made.

    axes: one logical axis a dimension (`jaxmoe.sharding.layout.LOGICAL_AXES`).
    """
    assert len(shape) == len(axes), (shape, axes)
    return nnx.Param(jnp.zeros(shape, dtype), axes=axes)


def project(x: Float[Array, "N D"], weight: Num[Array, "..."]) -> Float[Array, "..."]:
    """x [N, D] times weight [..., D] transposed -> [N, ...], in x's type.

    Sums in float32. A weight held as bits is widened in tiles.
    """
    out_shape = weight.shape[:-1]
    matrix = weight.reshape(-1, weight.shape[-1])
    if is_bits(matrix) and matrix.size > 2 * _TILE_VALUES:
        out = _project_tiles(x, matrix)
    else:
        out = multiply(x, widen(matrix, x.dtype))
    return out.astype(x.dtype).reshape(x.shape[0], *out_shape)


def _project_tiles(x: Array, matrix: Array) -> Array:
    rows, columns = matrix.shape
    tile = _tile_rows(rows, max(1, _TILE_VALUES // columns))
    whole = rows // tile

    def one(index, out):
        part = lax.dynamic_slice_in_dim(matrix, index * tile, tile)
        return lax.dynamic_update_slice_in_dim(
            out, multiply(x, widen(part, x.dtype)), index * tile, axis=1
        )

    out = jnp.zeros((x.shape[0], rows), jnp.float32)
    out = lax.fori_loop(0, whole, one, out)
    if rows % tile:
        rest = multiply(x, widen(matrix[whole * tile :], x.dtype))
        out = lax.dynamic_update_slice_in_dim(out, rest, whole * tile, axis=1)
    return out


def _tile_rows(rows: int, most: int) -> int:
    """Rows of a tile: a divisor of `rows` where one lies in most / 2 .. most."""
    divisors = (n for n in range(min(rows, most), most // 2, -1) if rows % n == 0)
    return next(divisors, min(rows, most))
