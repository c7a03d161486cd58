"""What the experts' weights are declared as, by their format (`MoEConfig.weights`).

A bank is a variable, or a module of several, whose `bank[...]` is what kernels take: an
array, or a packed weight that shows the shape such an array would have.
"""

from flax import nnx

from jaxmoe.config import WeightFormat
from jaxmoe.nn.linear import weight
from jaxmoe.ops import mxfp4
from jaxmoe.ops.inputs_first import InputsFirst
from jaxmoe.ops.mxfp4 import Mxfp4

PAIRED: tuple[WeightFormat, ...] = ("inputs_first", "mxfp4")
"""Formats in which gate and up of a hidden unit lie side by side, their biases too."""


def bank(
    weights: WeightFormat, shape: tuple[int, ...], dtype, axes: tuple[str, ...]
) -> "nnx.Param | InputsFirstBank | Mxfp4Bank":
    """What holds experts [E, 2, F, D] or [E, D, F], of such a format.

    axes: of the floats; the last one is what a product sums over.
    """
    if weights == "mxfp4":
        return Mxfp4Bank(shape, axes)
    if weights == "inputs_first":
        return InputsFirstBank(shape, dtype, axes)
    return weight(shape, dtype, axes, inputs=1)


class InputsFirstBank(nnx.Module):
    """Floats as `InputsFirst` has them."""

    def __init__(self, shape: tuple[int, ...], dtype, axes: tuple[str, ...]):
        self.outputs = len(shape) - 2
        turned = (shape[0], *shape[:0:-1])
        self.values = weight(turned, dtype, (axes[0], *axes[:0:-1]))

    def __getitem__(self, index) -> InputsFirst:
        """The packed weight, as a parameter of floats gives its array."""
        return InputsFirst(self.values[index], self.outputs)


class Mxfp4Bank(nnx.Module):
    """Blocks and scales; gate and up of a hidden unit stand side by side."""

    def __init__(self, shape: tuple[int, ...], axes: tuple[str, ...]):
        (*outputs, width), names = shape, axes[:-1]
        if width % mxfp4.BLOCK:
            raise ValueError(
                f"experts of mxfp4 need a multiple of {mxfp4.BLOCK} inputs, found "
                f"{width}; check hidden_size and intermediate_size in config.json"
            )
        self.pairs = "gate_up" in names
        if self.pairs:
            outputs[-2:], names = outputs[:-3:-1], (*names[:-2], *names[:-3:-1])
        full, kind = (*outputs, width // mxfp4.BLOCK), "uint8"
        self.blocks = weight((*full, mxfp4.BYTES), kind, (*names, axes[-1], "block"))
        self.scales = weight(full, kind, (*names, axes[-1]))

    def __getitem__(self, index) -> Mxfp4:
        """The packed weight, as a parameter of floats gives its array."""
        outputs = "pairs" if self.pairs else "apart"
        return Mxfp4(self.blocks[index], self.scales[index], outputs)
