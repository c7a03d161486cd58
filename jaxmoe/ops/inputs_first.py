"""Experts whose matrices lie inputs first, as transformers writes some.

The second product's are [E, F, D], and the first's [E, D, F, 2], gate and up of a
hidden unit beside each other. Kernels want outputs first: one expert at a time is
turned once it is cut.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp

from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, cut, take
from jaxmoe.typing import Array, Leaf, pytree


@pytree()
@dataclass(frozen=True)
class InputsFirst(Packed):
    """Values [..., I, *outputs] that are shown as [..., *outputs turned round, I].

    values: any float type, or bfloat16 bits. outputs: how many axes they have, static.
    """

    values: Leaf | OfLayer
    outputs: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Packed`."""
        shape = self.values.shape
        return tuple(shape[axis] for axis in self._axes(len(shape)))

    def cut(self, start: Array | int, size: int) -> "InputsFirst":
        """See `Packed`."""
        return replace(self, values=cut(self.values, start, size))

    def take(self, index: Array) -> "InputsFirst":
        """See `Packed`."""
        return replace(self, values=take(self.values, index))

    def widen(self, dtype: Any) -> Array:
        """See `Packed`."""
        values = widen(self.values, dtype)
        return jnp.transpose(values, self._axes(values.ndim))

    def _axes(self, ndim: int) -> tuple[int, ...]:
        lead = ndim - self.outputs - 1
        return (*range(lead), *reversed(range(lead, ndim)))
