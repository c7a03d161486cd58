"""Weights of 8 bits: integers, and a float32 scale for each output.

    w[o, i] = scale[o] q[o, i],   scale[o] = max_i |w[o, i]| / 127,   |q| <= 127

Rounded to the nearest, symmetric. A product is the scale times the sum of q x, so that
bytes are widened in a register and multiplied there (`jaxmoe.ops.lanes`).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxmoe.ops.bf16_bits import is_bits
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, cut, piece, take, whole
from jaxmoe.typing import Array, Leaf, pytree

MOST = 127
"""Of the magnitude of an integer: -128 would have no opposite."""


class Quantised(NamedTuple):
    """values: int8 [..., I]. scales: float32 [...], one for each output."""

    values: np.ndarray
    scales: np.ndarray


def quantise(weight: np.ndarray) -> Quantised:
    """The integers and scales of a weight [..., I] of any float type.

    An output of zeros has scale 0; one with NaN or infinity among its weights becomes
    NaN, whatever it is multiplied by.
    """
    wide = weight.astype(np.float32)
    scales = np.abs(wide).max(axis=-1, initial=0.0) / np.float32(MOST)
    finite = np.isfinite(scales)
    divisor = np.where(finite & (scales > 0), scales, np.float32(1))[..., None]
    # In place: this is done to weights of gigabytes, block by block.
    with np.errstate(over="ignore"):
        np.rint(np.divide(wide, divisor, out=wide), out=wide)
    np.clip(wide, -MOST, MOST, out=wide)
    wide[~finite] = 0
    scales = np.where(finite, scales, np.float32(np.nan))
    return Quantised(wide.astype(np.int8), scales)


def quantise_array(weight: Array, inputs: int) -> tuple[Array, Array]:
    """Integers and scales of an array, or of the bits of one, that is in memory.

    inputs: how many axes, the last ones, a product sums over.
    """
    host = np.asarray(weight)
    host = host.view(jnp.bfloat16) if is_bits(weight) else host
    outputs = host.shape[: host.ndim - inputs]
    rows = host.reshape(*outputs, -1)
    values, scales = np.empty(rows.shape, np.int8), np.empty(outputs, np.float32)
    # Matrix by matrix, so that only one of them is there as float32.
    for at in np.ndindex(outputs[:-1]):
        values[at], scales[at] = quantise(rows[at])
    return jnp.asarray(values.reshape(host.shape)), jnp.asarray(scales)


@pytree()
@dataclass(frozen=True)
class Int8(Packed):
    """values: int8, [..., I], or with several axes of inputs. scales: float32 [...]."""

    values: Leaf | OfLayer
    scales: Leaf | OfLayer

    # Half a cache line: with 64, LLVM runs out of registers, and is half as fast.
    lanes: ClassVar[int] = 32

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the floats."""
        return self.values.shape

    def cut(self, start: Array | int, size: int) -> "Int8":
        """See `Packed`."""
        return Int8(cut(self.values, start, size), cut(self.scales, start, size))

    def take(self, index: Array) -> "Int8":
        """See `Packed`."""
        return Int8(take(self.values, index), take(self.scales, index))

    def widen(self, dtype: Any) -> Array:
        """See `Packed`."""
        values, scales = whole(self.values), whole(self.scales)
        inputs = range(scales.ndim, values.ndim)
        wide = values.astype(jnp.float32) * jnp.expand_dims(scales, tuple(inputs))
        return wide.astype(dtype)

    def reshape(self, *shape: int) -> "Int8":
        """See `Packed`."""
        return Int8(self.values.reshape(*shape), self.scales.reshape(*shape[:-1]))

    def read(
        self, index: Array | int, start: Array | int, first: int, size: int, width: int
    ) -> Array:
        """See `Packed`."""
        part = piece(self.values, (index, start, first), (1, size, width))
        return part[0].astype(jnp.float32)

    def finished(self, sums: Array, index: Array | int, start: Array | int) -> Array:
        """See `Packed`."""
        return sums * piece(self.scales, (index, start), (1, sums.shape[1]))
