"""A head that classifies positions: what a model that scores text ends in."""

import jax.numpy as jnp
from flax import nnx

from jaxmoe.config import ScorerConfig
from jaxmoe.execution import Execution
from jaxmoe.nn.linear import project, weight
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.typing import Array, Float


class Scorer(nnx.Module):
    """Logits of a few labels: down(relu(up(x))), both with biases."""

    def __init__(self, config: ScorerConfig, d_model: int, dtype):
        self.up = weight((d_model, d_model), dtype, ("embed", "embed"))
        self.up_bias = weight((d_model,), dtype, ("embed",))
        self.down = weight((config.labels, d_model), dtype, ("label", "embed"))
        self.down_bias = weight((config.labels,), dtype, ("label",))

    def __call__(
        self, x: Float[Array, "N D"], execution: Execution
    ) -> Float[Array, "N labels"]:
        """The logits of each row, in x's type."""
        up, down = (
            widen(b[...], x.dtype)[None] for b in (self.up_bias, self.down_bias)
        )
        wide = jnp.maximum(project(x, self.up[...], execution) + up, 0)
        return project(wide, self.down[...], execution) + down
