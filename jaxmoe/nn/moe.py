"""The mixture of experts: router, policy, experts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.config import MoEConfig
from jaxmoe.experts import Implementation, apply_experts
from jaxmoe.nn.linear import weight
from jaxmoe.parts import WHOLE, Part
from jaxmoe.products import multiply
from jaxmoe.router.policies import Policy
from jaxmoe.router.scores import SoftmaxScores
from jaxmoe.typing import Array, Bool, Float, Int
from jaxmoe.widen import widen

Choose = Callable[[int, Float[Array, "N E"]], Int[Array, "N K"]]
"""(layer, ranking [N, E]) -> experts [N, K]: a policy at work on rows."""


def choose_experts(
    policy: Policy,
    ranking: Float[Array, "N E"],
    noise: Float[Array, "N E"] | None,
    *,
    forced: Int[Array, "N K"] | None = None,
    active: Bool[Array, "N"] | None = None,
) -> Int[Array, "N K"]:
    """Each row's experts under the policy of one layer.

    forced: experts to take instead, in rows whose first entry is not -1 (replay).
    active: rows that count; the others get no expert, and read none.
    """
    if noise is None:
        experts = jax.vmap(lambda row: policy.choose(row, None))(ranking)
    else:
        experts = jax.vmap(policy.choose)(ranking, noise)
    if forced is not None:
        experts = jnp.where(forced[:, :1] >= 0, forced, experts)
    if active is not None:
        experts = jnp.where(active[:, None], experts, -1)
    # All that follows compiles alike whatever the policy, so that policies which
    # choose the same experts give the same bits.
    return lax.optimization_barrier(experts)


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
        layer: int,
        choose: Choose,
        implementation: Implementation,
        part: Part = WHOLE,
    ) -> tuple[Float[Array, "N D"], Int[Array, "N K"]]:
        """The output, and the experts that made it."""
        with jax.named_scope("router"):
            logits = lax.optimization_barrier(self.router(x))
            experts = choose(layer, self.scores.ranking(logits))
            weights = self.scores.weights(logits, experts)
        weights = weights.astype(x.dtype)
        out = self._apply(x, experts, weights, implementation, part)
        return out, experts

    def _apply(
        self,
        x: Float[Array, "N D"],
        experts: Int[Array, "N K"],
        weights: Float[Array, "N K"],
        implementation: Implementation,
        part: Part,
    ) -> Float[Array, "N D"]:
        """The chosen experts' sum; those that lie elsewhere are computed there."""
        divided = ("experts", "expert_mlp")
        gate_up, down = self.gate_up[...], self.down[...]
        x, experts, weights = (part.gather(a, *divided) for a in (x, experts, weights))
        if part.axes("experts"):
            own, here = part.inside(experts, "experts", gate_up.shape[0])
            experts = jnp.where((experts >= 0) & here, own, -1)
        out = apply_experts(
            x, experts, weights, gate_up, down, implementation=implementation
        )
        return part.add(out, *divided)


class Router(nnx.Module):
    """One logit an expert, float32 whatever the weights' type: near-ties decide."""

    def __init__(self, num_experts: int, d_model: int, dtype):
        self.weight = weight((num_experts, d_model), dtype, ("router", "embed"))

    def __call__(self, x: Float[Array, "N D"]) -> Float[Array, "N E"]:
        """Router logits of each row."""
        matrix = widen(self.weight[...], jnp.float32)
        return multiply(x.astype(jnp.float32), matrix)
