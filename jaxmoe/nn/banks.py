"""What the experts' weights are declared as, by their format (`MoEConfig.weights`).

A bank is a variable, or a module of several, whose `bank[...]` is what kernels take: an
array, or a packed weight that shows the shape such an array would have.
"""

from typing import Any

from flax import nnx

from jaxmoe.config import WeightFormat
from jaxmoe.nn.linear import weight
from jaxmoe.ops.inputs_first import InputsFirst

PAIRED: tuple[WeightFormat, ...] = ("inputs_first",)
"""Formats in which gate and up of a hidden unit lie side by side, their biases too."""


def bank(
    format: WeightFormat, shape: tuple[int, ...], dtype, axes: tuple[str, ...]
) -> Any:
    """Matrices of all experts; shape, axes: [E, *outputs, inputs], of the floats."""
    if format == "float":
        return weight(shape, dtype, axes, inputs=1)
    return InputsFirstBank(shape, dtype, axes)


class InputsFirstBank(nnx.Module):
    """Floats as `InputsFirst` has them."""

    def __init__(self, shape: tuple[int, ...], dtype, axes: tuple[str, ...]):
        self.outputs = len(shape) - 2
        turned = tuple(shape[axis] for axis in self._order())
        names = tuple(axes[axis] for axis in self._order())
        self.values = weight(turned, dtype, names)

    def __getitem__(self, index: Any) -> InputsFirst:
        """The packed weight, for `bank[...]`."""
        return InputsFirst(self.values[...], self.outputs)

    def _order(self) -> tuple[int, ...]:
        return (0, *range(self.outputs + 1, 0, -1))
