"""The mixture of experts: router, policy, experts, and what every token has of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.config import DenseConfig, MoEConfig, SharedConfig
from jaxmoe.nn.banks import PAIRED, bank
from jaxmoe.nn.base import Context
from jaxmoe.nn.dense import DenseFeedForward
from jaxmoe.nn.linear import weight
from jaxmoe.ops.activations import Activation
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts import ExpertBias, apply_experts
from jaxmoe.ops.matmul import multiply
from jaxmoe.ops.stack import whole
from jaxmoe.router.routing import Choose
from jaxmoe.router.scores import Scores
from jaxmoe.typing import Array, Float, Int


class Routed(NamedTuple):
    """Of rows: experts int [N, K], what they were ranked by, float32 [N, E], and what
    they weigh, float32 [N, K]."""

    experts: Array
    ranking: Array
    weights: Array


class MoEFeedForward(nnx.Module):
    """Experts chosen per token: sum of weights_e * expert_e(x); a shared one beside."""

    def __init__(self, config: MoEConfig, d_model: int, dtype):
        experts, hidden = config.num_experts, config.hidden
        self.scores, self.activation = config.scoring, config.activation
        self.has_bias, self.has_shared = config.bias, config.shared is not None
        self.router = Router(experts, d_model, config.bias, config.scoring, dtype)
        axes = ("experts", "gate_up", "expert_mlp", "embed")
        shape = (experts, 2, hidden, d_model)
        self.gate_up = bank(config.weights, shape, dtype, axes)
        axes, shape = ("experts", "embed", "expert_mlp"), (experts, d_model, hidden)
        self.down = bank(config.weights, shape, dtype, axes)
        self.paired = config.weights in PAIRED
        if config.bias:
            shape, axes = (2, hidden), ("gate_up", "expert_mlp")
            if self.paired:
                shape, axes = shape[::-1], axes[::-1]
            self.gate_up_bias = weight((experts, *shape), dtype, ("experts", *axes))
            self.down_bias = weight((experts, d_model), dtype, ("experts", "embed"))
        if config.shared is not None:
            kind = config.activation
            self.shared = SharedExpert(config.shared, kind, d_model, dtype)

    def __call__(
        self,
        x: Float[Array, "N D"],
        layer: Array | int,
        choose: Choose,
        context: Context,
    ) -> tuple[Float[Array, "N D"], "Routed"]:
        """The output, and the experts that made it.

        layer: its index among all layers of the model.
        """
        with jax.named_scope("router"):
            logits = lax.optimization_barrier(self.router(x, context))
            ranking = self.scores.ranking(logits, self.router.bias_of_choice)
            experts = choose(layer, ranking)
            weights = self.scores.weights(logits, experts)
        routed = Routed(experts, ranking, weights)
        weights = weights.astype(self.scores.weight_dtype(x.dtype))
        out = self.apply(x, experts, weights, context)
        if self.has_shared:
            with jax.named_scope("shared_expert"):
                out = out + self.shared(x, context)
        return out, routed

    def apply(
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
        out = apply_experts(
            x,
            experts,
            weights,
            gate_up,
            down,
            implementation=context.execution.experts,
            activation=self.activation,
            bias=self._bias(context) if self.has_bias else None,
        )
        return device.reduce_scatter_ordered(out, *divided)

    def _bias(self, context: Context) -> ExpertBias:
        """What is added here, where hidden units of one expert may be divided."""
        device, down = context.device, self.down_bias[...]
        gate_up = self.gate_up_bias[...]
        if self.paired:
            gate_up = whole(gate_up).swapaxes(1, 2)
        if device.axes("expert_mlp"):
            # Each device gives a part of the second product: one of them adds this.
            first = device.index("expert_mlp") == 0
            down = jnp.where(first, whole(down), 0)
        return ExpertBias(gate_up, down)


class SharedExpert(DenseFeedForward):
    """An expert that every token has, with or without a gate: sigmoid(g . x) of it."""

    def __init__(
        self, config: SharedConfig, activation: Activation, d_model: int, dtype
    ):
        super().__init__(DenseConfig(config.hidden, activation), d_model, dtype)
        self.has_gate = config.gate
        if config.gate:
            # One logit, as the router gives one an expert.
            self.gate = weight((1, d_model), dtype, ("router", "embed"))

    def __call__(self, x: Float[Array, "N D"], context: Context) -> Float[Array, "N D"]:
        """The output of each row."""
        out = super().__call__(x, context)
        if not self.has_gate:
            return out
        # Not a product of matrices: with one column, on CPU, XLA adds up some of many
        # rows in another order, and so a row's last bit would change with its place.
        logit = (x.astype(jnp.float32) * widen(self.gate[...])).sum(1, keepdims=True)
        return out * jax.nn.sigmoid(logit).astype(x.dtype)


class Router(nnx.Module):
    """One logit an expert, float32 whatever the weights' type: near-ties decide."""

    def __init__(
        self, num_experts: int, d_model: int, bias: bool, scores: Scores, dtype
    ):
        self.weight = weight((num_experts, d_model), dtype, ("router", "embed"))
        if bias:
            self.bias = weight((num_experts,), dtype, ("router",))
        self.has_bias, self.has_choice_bias = bias, scores.choice_bias
        if scores.choice_bias:
            self.choice_bias = weight((num_experts,), jnp.float32, ("router",))

    @property
    def bias_of_choice(self) -> Float[Array, "E"] | None:
        """What is added to scores where experts are ranked; see `Scores.ranking`."""
        return widen(self.choice_bias[...]) if self.has_choice_bias else None

    def __call__(self, x: Float[Array, "N D"], context: Context) -> Float[Array, "N E"]:
        """Router logits of each row."""
        matrix = widen(self.weight[...], jnp.float32)
        left = context.execution.products != "plain"
        logits = multiply(x.astype(jnp.float32), matrix, weight_left=left)
        return logits + widen(self.bias[...])[None] if self.has_bias else logits
