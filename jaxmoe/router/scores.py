"""Scoring rules: how a model turns router logits into a ranking and into weights.

A rule belongs to the model family: a frozen value that its config names. It says by
what number experts are ranked, and what weight each *chosen* expert gets, in which
type; which experts are chosen is the policy's part. To add one is to add a class here.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxmoe.typing import Array, Float, Int

WeightType = Literal["activations", "float32"]


@dataclass(frozen=True)
class Scores:
    """Contract of a scoring rule.

    `weight_type` is that of the weights where they multiply what experts give: the type
    of the "activations", to which they are rounded (Qwen3-MoE, OLMoE), or "float32"
    (Ling, DeepSeek, GLM). Sums over experts are in float32 either way.
    """

    weight_type: WeightType = field(default="activations", kw_only=True)

    def __post_init__(self):
        if self.weight_type not in get_args(WeightType):
            raise ValueError(
                f"weight_type must be one of {', '.join(get_args(WeightType))}, found "
                f"{self.weight_type!r}"
            )

    def ranking(self, logits: Float[Array, "*N E"]) -> Float[Array, "*N E"]:
        """What experts are ranked by, in log space, float32."""
        raise NotImplementedError

    def weights(
        self, logits: Float[Array, "*N E"], experts: Int[Array, "*N K"]
    ) -> Float[Array, "*N K"]:
        """Weights of the chosen experts, float32; 0 where `experts` is -1."""
        raise NotImplementedError

    def weight_dtype(self, activations: Any) -> Any:
        """The type that weights are rounded to, where activations have this one."""
        return jnp.float32 if self.weight_type == "float32" else activations


@dataclass(frozen=True)
class SoftmaxScores(Scores):
    """Probabilities over all experts, optionally renormalised over the chosen.

    weight_e = p_e, or p_e / sum of p over the chosen set where `normalise`, with
    p = softmax(logits). Ranks by logit, which orders as p does.
    """

    normalise: bool

    def ranking(self, logits: Float[Array, "*N E"]) -> Float[Array, "*N E"]:
        """What experts are ranked by, in log space, float32."""
        return logits.astype(jnp.float32)

    def weights(
        self, logits: Float[Array, "*N E"], experts: Int[Array, "*N K"]
    ) -> Float[Array, "*N K"]:
        """Weights of the chosen experts, float32; 0 where `experts` is -1."""
        # Over the chosen alone p / sum of p is their softmax, which neither underflows
        # where all of them are unlikely nor divides by 0 where there are none.
        logits = logits.astype(jnp.float32)
        taken = jnp.maximum(experts, 0)
        if self.normalise:
            chosen = jnp.take_along_axis(logits, taken, axis=-1)
            return jax.nn.softmax(chosen, axis=-1, where=experts >= 0)
        chosen = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), taken, axis=-1)
        return jnp.where(experts >= 0, chosen, 0.0)
