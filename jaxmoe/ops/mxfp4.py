"""MXFP4 weights: 4-bit floats in blocks of 32, a power of two a block (OCP MX 1.0).

Along the inputs' axis, byte j of a block holds columns 2 j (low half) and 2 j + 1. A
half is a sign and one of 0, 1/2, 1, 3/2, 2, 3, 4, 6; its block's scale s multiplies it
by 2^(s - 127). Every value is a float32, and a bfloat16, exactly.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jax import lax

from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, cut, piece, take, whole
from jaxmoe.typing import Array, Integer, Leaf, pytree

BLOCK = 32
"""Values under one scale."""

BYTES = BLOCK // 2
"""Of a block."""

LARGEST_SCALE = 252
"""6 times the next power of two is no float32 any more, and 255 stands for NaN."""


_HALF = 2.0**14
"""What halves moved into float16 must be multiplied by: its bias is 15, theirs is 1."""


def unpack(blocks: Integer[Array, "*N W 16"], scales: Integer[Array, "*N W"]) -> Array:
    """The floats, float32 [*N, 32 W]: every value exact, those below 2^-126 too."""
    halves = jnp.stack([blocks & 15, blocks >> 4], axis=-1)
    codes = halves.reshape(*scales.shape, BLOCK).astype(jnp.int32)
    sign, size = (codes & 8) << 28, codes & 7
    # An exponent of two bits and one bit after the point, but for 0 and 1/2.
    exponent = jnp.where(size < 2, 0, (size >> 1)) + scales[..., None] - 1
    tail = jnp.where(size < 2, 0, size & 1) << 22
    normal = (exponent << 23) | tail
    # Below the normal numbers: what stands before the point is moved behind it.
    shift = jnp.clip(1 - exponent, 0, 31)
    bits = jnp.where(exponent > 0, normal, ((1 << 23) | tail) >> shift)
    bits = jnp.where(size == 0, 0, bits) | sign
    wide = lax.bitcast_convert_type(bits, jnp.float32)
    return wide.reshape(*scales.shape[:-1], -1)


def _value(pairs: Array, high: int) -> Array:
    """What the low or high halves of bytes stand for under the scale 127, float32.

    Their bits are moved into those of float16, which processors widen in one
    instruction, subnormal numbers too: 1/2 is one.
    """
    wide = pairs.astype(jnp.uint16)
    sign, size = (wide & 0x80) << 8, (wide & 0x70) << 5
    if not high:
        sign, size = (wide & 8) << 12, (wide & 7) << 9
    value = lax.bitcast_convert_type(sign | size, jnp.float16).astype(jnp.float32)
    # Hidden: XLA would multiply a block's scale by a constant first, and overflow.
    return value * lax.optimization_barrier(jnp.float32(_HALF))


@pytree()
@dataclass(frozen=True)
class Mxfp4(Packed):
    """blocks: uint8 [..., I / 32, 16]. scales: uint8 [..., I / 32].

    outputs: how those of the last two axes are stored. "apart": as they are shown.
    "pairs": gate and up of a hidden unit side by side, [F, 2] for [2, F]; "rows": the
    same, of [2 F] in one axis.
    """

    blocks: Leaf | OfLayer
    scales: Leaf | OfLayer
    outputs: Literal["apart", "pairs", "rows"] = field(
        default="apart", metadata={"static": True}
    )

    lanes: ClassVar[int] = 2 * BYTES

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the floats."""
        *outputs, width = self.scales.shape
        if self.outputs == "pairs":
            outputs[-2:] = reversed(outputs[-2:])
        return (*outputs, width * BLOCK)

    def cut(self, start: Array | int, size: int) -> "Mxfp4":
        """See `Packed`."""
        blocks, scales = (cut(part, start, size) for part in (self.blocks, self.scales))
        return Mxfp4(blocks, scales, self.outputs)

    def take(self, index: Array) -> "Mxfp4":
        """See `Packed`."""
        blocks, scales = (take(part, index) for part in (self.blocks, self.scales))
        return Mxfp4(blocks, scales, self.outputs)

    def widen(self, dtype: Any) -> Array:
        """See `Packed`."""
        wide = unpack(whole(self.blocks), whole(self.scales)).astype(dtype)
        if self.outputs == "rows":
            pairs = wide.reshape(*wide.shape[:-2], -1, 2, wide.shape[-1])
            return pairs.swapaxes(-2, -3).reshape(wide.shape)
        return wide.swapaxes(-2, -3) if self.outputs == "pairs" else wide

    def reshape(self, *shape: int) -> "Mxfp4":
        """See `Packed`; of pairs, the two axes of outputs become one."""
        outputs, width, kind = shape[:-1], self.scales.shape[-1], self.outputs
        if kind == "pairs":
            assert outputs[-1] == self.shape[-2] * self.shape[-3], (shape, self.shape)
            kind = "rows"
        blocks = self.blocks.reshape(*outputs, width, BYTES)
        return Mxfp4(blocks, self.scales.reshape(*outputs, width), kind)

    # -- in the vectorised loop: the low halves of two blocks, then their high halves --
    #    (with lines of one block, LLVM vectorises across rows, and is 20 times slower)

    @property
    def tail(self) -> int:
        """See `Packed`: the last one of an odd number of blocks."""
        return self.scales.shape[-1] % 2 * BLOCK

    def columns(self, first: int, width: int) -> slice:
        """See `Packed`."""
        start, high = first // (2 * width) * 2 * width, first // width % 2
        return slice(start + high, start + 2 * width, 2)

    def read(
        self, index: Array | int, start: Array | int, first: int, size: int, width: int
    ) -> Array:
        """See `Packed`; numbers below 2^-126 count as zero."""
        stack, outputs, blocks = self.scales.shape
        count, high = width // BYTES, first // width % 2
        block = first // (2 * width) * count
        flat = self.blocks.reshape(stack, outputs, blocks * BYTES)
        part = piece(flat, (index, start, block * BYTES), (1, size, width))[0]
        scale = piece(self.scales, (index, start, block), (1, size, count))[0]
        power = lax.bitcast_convert_type(scale.astype(jnp.int32) << 23, jnp.float32)
        power = jnp.broadcast_to(power[:, :, None], (size, count, BYTES))
        return _value(part, high) * power.reshape(size, width)

    def finished(self, sums: Array, index: Array | int, start: Array | int) -> Array:
        """See `Packed`."""
        if self.outputs != "rows":
            return sums
        assert sums.shape[1] == self.scales.shape[-2], "pairs cannot be cut"
        return sums.reshape(len(sums), -1, 2).swapaxes(1, 2).reshape(sums.shape)
