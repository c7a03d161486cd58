"""The mixture of experts: router, policy, experts."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.config import MoEConfig
from jaxmoe.nn.base import Context
from jaxmoe.nn.linear import weight
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts import apply_experts
from jaxmoe.ops.matmul import multiply
from jaxmoe.router.routing import Choose
from jaxmoe.router.scores import SoftmaxScores
from jaxmoe.typing import Array, Float, Int


class MoEFeedForward(nnx.Module):
    """Experts chosen per token: sum of weights_e * expert_e(x)."""

    def __init__(self, config: MoEConfig, d_model: int, dtype):
        experts, hidden = config.num_experts, config.hidden
        self.scores = SoftmaxScores(config.normalise)
        self.router = Router(experts, d_model, dtype)
        self.gate_up = weight(
            (experts, 2, hidden, d_model),
            dtype,
            ("experts", "gate_up", "expert_mlp", "embed"),
        )
        self.down = weight(
            (experts, d_model, hidden), dtype, ("experts", "embed", "expert_mlp")
        )

    def __call__(
        self,
        x: Float[Array, "N D"],
        layer: Array | int,
        choose: Choose,
        context: Context,
    ) -> tuple[Float[Array, "N D"], Int[Array, "N K"], Float[Array, "N E"]]:
        """The output, the experts that made it, and what they were ranked by.

        layer: its index among all layers of the model.
        """
        with jax.named_scope("router"):
            logits = lax.optimization_barrier(self.router(x, context))
            ranking = self.scores.ranking(logits)
            experts = choose(layer, ranking)
            weights = self.scores.weights(logits, experts)
        weights = weights.astype(x.dtype)
        return self._apply(x, experts, weights, context), experts, ranking

    def _apply(
        self,
        x: Float[Array, "N D"],
        experts: Int[Array, "N K"],
        weights: Float[Array, "N K"],
        context: Context,
    ) -> Float[Array, "N D"]:
        """The chosen experts' sum; those that lie elsewhere are computed there."""
        device, divided = context.device, ("experts", "expert_mlp")
        gate_up, down = self.gate_up[...], self.down[...]
        x, experts, weights = (
            device.all_gather_rows(a, *divided) for a in (x, experts, weights)
        )
        if device.axes("experts"):
            own, here = device.inside(experts, "experts", gate_up.shape[0])
            experts = jnp.where((experts >= 0) & here, own, -1)
        kernel = context.execution.experts
        out = apply_experts(x, experts, weights, gate_up, down, implementation=kernel)
        return device.reduce_scatter_ordered(out, *divided)


class Router(nnx.Module):
    """One logit an expert, float32 whatever the weights' type: near-ties decide."""

    def __init__(self, num_experts: int, d_model: int, dtype):
        self.weight = weight((num_experts, d_model), dtype, ("router", "embed"))

    def __call__(self, x: Float[Array, "N D"], context: Context) -> Float[Array, "N E"]:
        """Router logits of each row."""
        matrix = widen(self.weight[...], jnp.float32)
        left = context.execution.products != "plain"
        return multiply(x.astype(jnp.float32), matrix, weight_left=left)
