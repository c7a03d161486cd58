"""Policies that change another policy: what it ranks by, or where it is noisy.

They have no `numbers` that a slot could hold, so each runs in a program of its own, as
`sample` and evaluation make one, and an `Engine` with `policy=`.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxmoe.router.policies import (
    DERIVED,
    Policy,
    certainty_of_set,
    packed,
    per_layer,
    pytree,
    ranked,
)
from jaxmoe.typing import Array, ArrayLike, Bool, Float, Int

MOST_BIAS = 1e4
"""Largest finite bias: beside it a ranking keeps three decimals in float32."""


@pytree()
@dataclass(frozen=True)
class Biased(Policy):
    """Another policy that ranks by ranking + bias: steering, and experts banned.

    choice = policy(ranking + b), b [L, E]. The ranking is a logit (or the log of the
    score), so b multiplies an expert's odds by e^b. After SteerMoE (arXiv 2509.09660),
    which puts experts before or behind all others: b = 1e4 or -1e4 here, and -inf
    bans. A banned expert computes nothing: where fewer than the policy's k are left
    of those that the rule allows, places stay empty. Weights remain those of the
    model's own scores, and groups that the rule chooses first are chosen without b.
    Prompt tokens are biased alike. b = 0 is `policy` bit for bit.

    policy: the policy that chooses.
    bias: b, [L, E], or [E] for all layers alike; dense layers counted.
    """

    policy: Policy
    bias: ArrayLike = field(metadata={"digest": True})

    @property
    def noisy(self) -> bool:
        """As the policy within."""
        return self.policy.noisy

    @property
    def width(self) -> int:
        return self.policy.width

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "Biased":
        fit = {"k": k, "num_experts": num_experts, "num_layers": num_layers}
        policy = self.policy.resolve(**fit)
        if isinstance(self.bias, Tracer):
            whole = jnp.broadcast_to(self.bias, (num_layers, num_experts))
            return Biased(policy, whole.astype(jnp.float32))
        bias = np.asarray(self.bias, np.float32)
        if bias.shape not in ((num_experts,), (num_layers, num_experts)):
            raise ValueError(
                f"policy: bias must have one number for each of {num_experts} experts, "
                f"or be [{num_layers}, {num_experts}] (dense layers counted), found "
                f"shape {bias.shape}"
            )
        if not ((np.abs(bias) <= MOST_BIAS) | (bias == -np.inf)).all():
            raise ValueError(
                f"policy: bias must lie in -{MOST_BIAS:g}..{MOST_BIAS:g}, or be -inf "
                f"to ban an expert, found {bias[~(np.abs(bias) <= MOST_BIAS)][0]}"
            )
        bias = np.broadcast_to(bias, (num_layers, num_experts)).copy()
        left = (bias > -np.inf).sum(axis=1)
        if (left < policy.width).any():
            layer = int(np.argmax(left < policy.width))
            raise ValueError(
                f"policy: bias must leave {policy.width} experts or more (those that "
                f"the policy chooses), found {left[layer]} in layer {layer}"
            )
        return Biased(policy, bias)

    def deterministic(self, num_layers: int) -> Policy:
        return Biased(self.policy.deterministic(num_layers), self.bias)

    def biased(self, ranking: Float[Array, "E"]) -> Float[Array, "E"]:
        """What experts are ranked by."""
        return ranking + jnp.asarray(self.bias)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        chosen = self.policy.choose(self.biased(ranking), noise)
        # Where too few are left a policy fills its places with whom the rule forbids.
        banned = jnp.asarray(self.bias)[chosen] == -jnp.inf
        return packed(chosen, (chosen >= 0) & ~banned)

    def log_probability(
        self, ranking: Float[Array, "E"], experts: Int[Array, "K"]
    ) -> Float[Array, ""]:
        biased = self.biased(ranking)
        law = self.policy.log_probability(biased, experts)
        # Where no more are left than are chosen, all of them are, whatever the noise.
        few = (biased > -jnp.inf).sum() < self.width
        all_left = self.choose(ranking, jnp.zeros_like(ranking))
        return jnp.where(few, certainty_of_set(experts, all_left), law)

    @property
    def has_log_probability(self) -> bool:
        """As the policy within; not of one that leaves out experts that are left."""
        return self.policy.has_log_probability and self.policy.fills

    @property
    def fills(self) -> bool:
        """As the policy within."""
        return self.policy.fills


Uncertainty = Literal["entropy", "margin"]


@pytree("by")
@dataclass(frozen=True)
class Gated(Policy):
    """Another policy where the router is uncertain, and its noiseless form elsewhere.

    by "entropy": noise where H(p) = -sum_e p_e log p_e > threshold, in nats,
    p = softmax(ranking) over all E experts; none where threshold >= log E.
    by "margin": noise where log p_(K) - log p_(K+1) < threshold, in nats, between the
    last expert that is chosen and the first that is not; none where threshold = 0.
    Of no paper: a test of where noise pays. Uncertainty is each layer's own, and of the
    model's ranking before any bias. Where no router is uncertain it is `TopK()`.

    policy: what chooses where the router is uncertain; a noisy one.
    by: "entropy" or "margin".
    threshold: in nats, >= 0; one number, or one a layer.
    plain: set by `resolve`: what chooses elsewhere.
    """

    policy: Policy
    by: Uncertainty = field(default="entropy", kw_only=True)
    threshold: ArrayLike = field(kw_only=True)
    plain: Policy | None = field(
        default=None, kw_only=True, repr=False, metadata=DERIVED
    )

    @property
    def width(self) -> int:
        return self.policy.width

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "Gated":
        if self.by not in get_args(Uncertainty):
            options = ", ".join(get_args(Uncertainty))
            raise ValueError(f"policy: by must be one of {options}, found {self.by!r}")
        if not self.policy.noisy:
            name = type(self.policy).__name__
            raise ValueError(
                f"policy: Gated needs a policy with noise, such as ExpertSample(), "
                f"found {name}"
            )
        fit = {"k": k, "num_experts": num_experts, "num_layers": num_layers}
        policy = self.policy.resolve(**fit)
        threshold = per_layer("threshold", self.threshold, num_layers, low=0)
        plain = policy.deterministic(num_layers)
        return Gated(policy, by=self.by, threshold=threshold, plain=plain)

    def deterministic(self, num_layers: int) -> Policy:
        return self.policy.deterministic(num_layers)

    def uncertain(self, ranking: Float[Array, "E"]) -> Bool[Array, ""]:
        """Whether noise has a say for this token."""
        if self.by == "entropy":
            return entropy(ranking) > self.threshold
        if self.width == ranking.shape[0]:
            return jnp.bool_(False)  # no expert is left out
        best = ranked(ranking, self.width + 1).scores
        return best[-2] - best[-1] < self.threshold

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        assert self.plain is not None
        return jnp.where(
            self.uncertain(ranking),
            self.policy.choose(ranking, noise),
            self.plain.choose(ranking, None),
        )

    def log_probability(
        self, ranking: Float[Array, "E"], experts: Int[Array, "K"]
    ) -> Float[Array, ""]:
        assert self.plain is not None
        return jnp.where(
            self.uncertain(ranking),
            self.policy.log_probability(ranking, experts),
            self.plain.log_probability(ranking, experts),
        )

    @property
    def has_log_probability(self) -> bool:
        """As the policy within."""
        return self.policy.has_log_probability

    @property
    def fills(self) -> bool:
        """As the policy within."""
        return self.policy.fills


MODIFIERS: dict[str, type[Policy]] = {"biased": Biased, "gated": Gated}
"""By the names that `jaxmoe list policies` has for them."""


def entropy(ranking: Float[Array, "E"]) -> Float[Array, ""]:
    """H(softmax(ranking)) in nats; experts at -inf, which the rule forbids, have none.

    Computed alike in every program, as `certain_head` is: a sum taken in another order
    could fall to the other side of a threshold.
    """
    ranking = lax.optimization_barrier(ranking)
    weight = jnp.exp(ranking - ranking.max())
    total = lax.optimization_barrier(weight.sum())
    p = weight / total
    # p log p is 0 at 0.
    terms = jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0)
    return -lax.optimization_barrier(terms).sum()
