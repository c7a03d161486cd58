"""One layer of an array that holds the same thing of several layers, cut out lazily.

A loop over layers that cut each layer's weights or cache out of a stack would copy
them at every turn. `OfLayer` names the layer, and who reads it cuts just what it needs:
one slice of (layer, start, 0, ...).
"""

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from jax import lax

from jaxmoe.ops.packed import Packed
from jaxmoe.typing import Array, Leaf, pytree


@pytree()
@dataclass(frozen=True)
class OfLayer:
    """`stack[layer]`, not yet read. stack: [L, ...]; layer: int, or a traced index."""

    stack: Leaf
    layer: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the layer."""
        return self.stack.shape[1:]

    @property
    def ndim(self) -> int:
        """Of the layer."""
        return self.stack.ndim - 1

    @property
    def size(self) -> int:
        """Values of the layer."""
        return self.stack.size // self.stack.shape[0]

    @property
    def dtype(self):
        """Of the stack, and so of the layer."""
        return self.stack.dtype

    def reshape(self, *shape: int) -> "OfLayer":
        """The layer in another shape."""
        return OfLayer(self.stack.reshape(self.stack.shape[0], *shape), self.layer)

    def __getitem__(self, index) -> "OfLayer":
        if index is not Ellipsis:
            raise TypeError(f"cut a layer with `cut` or `piece`, found [{index!r}]")
        return self


@overload
def whole(array: Packed) -> Packed: ...
@overload
def whole(array: Array | OfLayer) -> Array: ...
def whole(array: Any) -> Any:
    """The layer as an array of its own; a packed weight, to be cut later, as it is."""
    if not isinstance(array, OfLayer):
        return array
    if isinstance(array.layer, int):
        return array.stack[array.layer]
    return lax.dynamic_index_in_dim(array.stack, array.layer, 0, keepdims=False)


def piece(
    array: Array | OfLayer, starts: tuple[Array | int, ...], sizes: tuple[int, ...]
) -> Array:
    """`lax.dynamic_slice` of the layer, in one slice of the stack."""
    if not isinstance(array, OfLayer):
        return lax.dynamic_slice(array, _starts(array, starts, sizes), sizes)
    starts, sizes = (array.layer, *starts), (1, *sizes)
    return lax.dynamic_slice(array.stack, _starts(array.stack, starts, sizes), sizes)[0]


def _starts(
    array: Array, starts: tuple[Array | int, ...], sizes: tuple[int, ...]
) -> tuple[Array | int | np.integer, ...]:
    """0 where all of an axis is taken; Python's integers of the type of the others.

    XLA drops such an index, which a call of `jaxmoe.ops.emitters` must not have. JAX
    takes integers of one type alone.
    """
    types = [start.dtype for start in starts if not isinstance(start, int)]
    typed = np.dtype(types[0]).type if types else int
    every = zip(starts, sizes, array.shape, strict=True)
    found = (0 if size == length else start for start, size, length in every)
    return tuple(typed(x) if isinstance(x, int) else x for x in found)


@overload
def cut(array: Packed, start: Array | int, size: int) -> Packed: ...
@overload
def cut(array: Array | OfLayer, start: Array | int, size: int) -> Array: ...
def cut(array: Any, start: Array | int, size: int) -> Any:
    """`size` entries of the first dimension, from `start` on."""
    if isinstance(array, Packed):
        return array.cut(start, size)
    rest = array.shape[1:]
    return piece(array, (start, *(0 for _ in rest)), (size, *rest))


@overload
def take(array: Packed, index: Array) -> Packed: ...
@overload
def take(array: Array | OfLayer, index: Array) -> Array: ...
def take(array: Any, index: Array) -> Any:
    """The entries `index` of the first dimension, copied."""
    if isinstance(array, Packed):
        return array.take(index)
    if isinstance(array, OfLayer):
        return array.stack[array.layer, index]
    return array[index]
