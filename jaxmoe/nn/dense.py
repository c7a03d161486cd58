"""The dense gated feed-forward."""

from flax import nnx

from jaxmoe.config import DenseConfig
from jaxmoe.nn.base import Context
from jaxmoe.nn.linear import project, weight
from jaxmoe.typing import Array, Float


class DenseFeedForward(nnx.Module):
    """down(activation(gate(x), up(x)))."""

    def __init__(self, config: DenseConfig, d_model: int, dtype):
        self.activation = config.activation
        axes = ("gate_up", "mlp", "embed")
        self.gate_up = weight((2, config.hidden, d_model), dtype, axes, inputs=1)
        shape = (d_model, config.hidden)
        self.down = weight(shape, dtype, ("embed", "mlp"), inputs=1)

    def __call__(self, x: Float[Array, "N D"], context: Context) -> Float[Array, "N D"]:
        """The output of each row."""
        gated = project(x, self.gate_up[...], context.execution)
        act = self.activation(gated[:, 0], gated[:, 1])
        out = project(act, self.down[...], context.execution)
        return context.device.reduce_scatter_ordered(out, "mlp")
