"""Weights that are no plain arrays of floats: what they have in common.

A packed weight stands where an array stands, and shows the shape that the array would
have. Kernels cut what they need of it, and widen that: never all of it. What one is
made of (bytes and scales, nibbles, another order of the axes) is its own affair.
"""

import math
from typing import Any, ClassVar, Self

from jaxmoe.typing import Array

SCALES = ".scales"
"""What the name of a packed weight's scales ends with."""

VALUES = ".values"
"""What the name of a packed weight ends with that has nothing beside its values."""


class Packed:
    """Contract of a packed weight: a frozen pytree of arrays, or of layers of them.

    `shape` is that of the floats, in the order that kernels expect: the outputs' axes,
    then the inputs', which are the last one.

    With `lanes` above 0 the vectorised loop (`jaxmoe.ops.lanes`) reads it as it lies,
    so many values a term, by `columns`, `read` and `finished`; the loop over experts
    widens it otherwise.
    """

    lanes: ClassVar[int] = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the floats."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """Dimensions of the floats."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Values."""
        return math.prod(self.shape)

    def cut(self, start: Array | int, size: int) -> Self:
        """`size` entries of the first dimension, from `start` on."""
        raise NotImplementedError

    def take(self, index: Array) -> Self:
        """Entries of the first dimension; `index` may have several of its own."""
        raise NotImplementedError

    def widen(self, dtype: Any) -> Array:
        """The floats."""
        raise NotImplementedError

    def reshape(self, *shape: int) -> Self:
        """With other axes of outputs, and the inputs' in one."""
        raise NotImplementedError

    def __getitem__(self, index: Any) -> Self:
        """Itself, as a variable that holds it is read by `variable[...]`."""
        if index is not Ellipsis:
            raise TypeError(f"cut a packed weight with `cut`, found [{index!r}]")
        return self

    # -- as the vectorised loop reads a stack of matrices [X, Y, I] --------------------

    @property
    def tail(self) -> int:
        """Inputs at the end that are read in two lines instead, of half as many."""
        return 0

    def columns(self, first: int, width: int) -> slice:
        """Which inputs the line is of that `read` gives as `first` and those after."""
        return slice(first, first + width)

    def read(
        self, index: Array | int, start: Array | int, first: int, size: int, width: int
    ) -> Array:
        """float32 [size, width]: of matrix `index` some rows and columns, unscaled."""
        raise NotImplementedError

    def finished(self, sums: Array, index: Array | int, start: Array | int) -> Array:
        """Sums [R, size] of what was read of rows from `start` on, scaled."""
        return sums
