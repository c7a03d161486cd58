"""Weights of 8-bit floats (E4M3, arXiv 2209.05433), a scale for each block of them.

    w[o, i] = q[o, i] s[o // M, i // N]        s float32, blocks of M x N (128 x 128)

as models trained so are released (arXiv 2412.19437, section 3.3.2). The last block of
an axis may be cut short. A value is widened by its own product with its scale, rounded
once, as transformers dequantises.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax

from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, cut, piece, take, whole
from jaxmoe.typing import Array, Leaf, pytree

DTYPE = np.dtype(ml_dtypes.float8_e4m3fn)
"""Of the values: sign, 4 bits of exponent, 3 of mantissa; no infinity."""

MOST = float(ml_dtypes.finfo(DTYPE).max)
"""The largest value, 448."""

_HALF = 256.0
"""What the bits of E4M3 moved into those of float16 must be multiplied by, 2^(15-7)."""

Block = tuple[int, int]
"""Rows (outputs) and columns (inputs) under one scale."""


def blocks_of(sizes: tuple[int, int], block: Block) -> tuple[int, int]:
    """How many blocks a matrix of so many rows and columns has."""
    return -(-sizes[0] // block[0]), -(-sizes[1] // block[1])


class Quantised(NamedTuple):
    """values: float8 [..., O, I]. scales: float32 [..., blocks of O, blocks of I]."""

    values: np.ndarray
    scales: np.ndarray


def quantise(weight: np.ndarray, block: Block) -> Quantised:
    """The nearest values of matrices [..., O, I], the largest of a block being 448."""
    *outer, rows, columns = weight.shape
    down, across = blocks_of((rows, columns), block)
    room = [(0, 0)] * len(outer)
    room += [(0, down * block[0] - rows), (0, across * block[1] - columns)]
    padded = np.pad(weight.astype(np.float32), room)
    tiles = padded.reshape(*outer, down, block[0], across, block[1])
    most = np.abs(tiles).max(axis=(-3, -1))
    scales = np.where(most > 0, most, MOST).astype(np.float32) / np.float32(MOST)
    tiles = np.clip(tiles / scales[..., :, None, :, None], -MOST, MOST)
    values = tiles.reshape(padded.shape)[..., :rows, :columns]
    return Quantised(np.ascontiguousarray(values.astype(DTYPE)), scales)


def dequantise(values: np.ndarray, scales: np.ndarray, block: Block) -> np.ndarray:
    """The floats, float32, of matrices [..., O, I] and their scales."""
    rows, columns = values.shape[-2:]
    wide = np.repeat(scales.astype(np.float32), block[0], axis=-2)[..., :rows, :]
    wide = np.repeat(wide, block[1], axis=-1)[..., :columns]
    return values.astype(np.float32) * wide


@pytree()
@dataclass(frozen=True)
class Fp8(Packed):
    """values: float8, or uint8 where their bits were taken, [*A, *outputs, *inputs].
    scales: float32 [*A, blocks, blocks].

    Each index of A has a matrix of its own, of `rows` rows; outputs lie one after the
    other in them, and so do inputs. `inputs` counts the axes of these. Where outputs
    or inputs are reshaped, several matrices may lie below each other.
    """

    values: Leaf | OfLayer
    scales: Leaf | OfLayer
    block: Block = field(metadata={"static": True})
    rows: int = field(metadata={"static": True})
    inputs: int = field(default=1, metadata={"static": True})

    # Half a cache line, as of int8.
    lanes: ClassVar[int] = 32

    @classmethod
    def of(
        cls,
        values: Leaf | OfLayer,
        scales: Leaf | OfLayer,
        block: Block,
        inputs: int,
        *,
        bits_first: bool = True,
    ) -> "Fp8":
        """Of arrays as a model holds them, float8 or their bits.

        bits_first: take bits before anything is cut, for CPUs: XLA computes on no
          float8 there, and puts a conversion, one value at a time, around each slice.
          Elsewhere XLA may hold the bits of all experts beside them.
        """
        outputs = values.shape[scales.ndim - 2 : values.ndim - inputs]
        held = _as_bits(values) if bits_first else values
        return cls(held, scales, block, math.prod(outputs), inputs)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the floats."""
        return self.values.shape

    def cut(self, start: Array | int, size: int) -> "Fp8":
        """See `Packed`; of rows of a matrix, each with its own scales from then on."""
        values = cut(self.values, start, size)
        if self.scales.ndim > 2:
            scales = cut(self.scales, start, size)
            return Fp8(values, scales, self.block, self.rows, self.inputs)
        # Entries of the first axis may have several rows each.
        each = math.prod(self.shape[1 : len(self.shape) - self.inputs])
        rows = start * each + jnp.arange(size * each, dtype=jnp.int32)
        scales = whole(self.scales)[self._block_row(rows)]
        return Fp8(values, scales, (1, self.block[1]), len(rows), self.inputs)

    def take(self, index: Array) -> "Fp8":
        """See `Packed`."""
        assert self.scales.ndim > 2, "rows of a matrix are cut, not gathered"
        values, scales = (take(part, index) for part in (self.values, self.scales))
        return Fp8(values, scales, self.block, self.rows, self.inputs)

    def widen(self, dtype: Any) -> Array:
        """See `Packed`."""
        values, scales = whole(self.values), whole(self.scales)
        outer = scales.shape[:-2]
        width = math.prod(self.shape[len(self.shape) - self.inputs :])
        matrices = _through_half(values.reshape(*outer, -1, width)) * _HALF
        rows = jnp.arange(matrices.shape[-2], dtype=jnp.int32)
        scales = jnp.take(scales, self._block_row(rows), axis=-2)
        scales = jnp.repeat(scales, self.block[1], axis=-1)[..., :width]
        return (matrices * scales).astype(dtype).reshape(values.shape)

    def reshape(self, *shape: int) -> "Fp8":
        """See `Packed`."""
        scales = self.scales.reshape(*shape[:-2], -1, self.scales.shape[-1])
        values = self.values.reshape(*shape)
        return Fp8(values, scales, self.block, self.rows)

    def _block_row(self, row: Array) -> Array:
        """Which row of scales is that of a row of matrices below each other."""
        each = -(-self.rows // self.block[0])
        if each * self.block[0] == self.rows:
            return row // self.block[0]
        return row // self.rows * each + row % self.rows // self.block[0]

    def _by_row(self, scales: Array) -> Array:
        """Rows of scales of matrices below each other, one for each row of these.

        What `_block_row` picks, without a gather, which a loop would not vectorise.
        """
        each, width = -(-self.rows // self.block[0]), scales.shape[-1]
        scales = jnp.repeat(scales.reshape(-1, each, width), self.block[0], axis=1)
        return scales[:, : self.rows].reshape(-1, width)

    def read(
        self, index: Array | int, start: Array | int, first: int, size: int, width: int
    ) -> Array:
        """See `Packed`."""
        part = piece(self.values, (index, start, first), (1, size, width))[0]
        blocks, columns = self.scales.shape[-2], self.block[1]
        left, right = first // columns, -(-(first + width) // columns)
        scales = piece(self.scales, (index, 0, left), (1, blocks, right - left))[0]
        scales = piece(self._by_row(scales), (start, 0), (size, right - left)) * _HALF
        if right - left > 1:
            scales = jnp.repeat(scales, columns, axis=1)
            skip = first - left * columns
            scales = scales[:, skip : skip + width]
        return _through_half(part) * scales


def _as_bits(values: Any) -> Any:
    if values.dtype == jnp.uint8:
        return values
    if isinstance(values, OfLayer):
        stack = lax.bitcast_convert_type(values.stack, jnp.uint8)
        return OfLayer(stack, values.layer)
    return lax.bitcast_convert_type(values, jnp.uint8)


def _through_half(values: Array) -> Array:
    """Values of E4M3 over 256, float32: their bits are moved into those of float16.

    Processors widen float16 in one instruction, subnormal numbers too. NaN, which no
    checkpoint is loaded with unwarned, becomes 480.
    """
    bits = _as_bits(values).astype(jnp.uint16)
    bits = (bits & 0x80) << 8 | (bits & 0x7F) << 7
    return lax.bitcast_convert_type(bits, jnp.float16).astype(jnp.float32)
