"""Policies that change another policy: what it ranks by, or where it is noisy.

A slot holds them (`Changes`), one bias and one gate about a policy that it holds; what
has more of them runs in a program of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.policies import (
    DERIVED,
    Changes,
    Policy,
    PolicyNumbers,
    TopK,
    certainty_of_set,
    numbers_of,
    packed,
    per_layer,
    ranked,
    require_one_pass,
)
from jaxmoe.typing import Array, ArrayLike, Bool, Float, Int, pytree

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
        policy = require_one_pass(self.policy, "Biased").resolve(**fit)
        if isinstance(self.bias, Tracer):
            whole = jnp.broadcast_to(self.bias, (num_layers, num_experts))
            return replace(self, policy=policy, bias=whole.astype(jnp.float32))
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
        return replace(self, policy=policy, bias=bias)

    def check_layers(self, layers: Sequence[int]) -> None:
        """See `Policy`: in each as many experts must be left as are chosen."""
        self.policy.check_layers(layers)
        plain = self.policy.deterministic(np.shape(self.bias)[0])
        while isinstance(plain, Biased):
            plain = plain.policy
        wanted = plain.k if isinstance(plain, TopK) else plain.width
        if isinstance(self.bias, Tracer) or isinstance(wanted, Tracer):
            return
        left = (np.asarray(self.bias) > -np.inf).sum(axis=1)
        wanted = np.broadcast_to(np.asarray(wanted), left.shape)
        for layer in layers:
            if left[layer] < wanted[layer]:
                raise ValueError(
                    f"policy: bias must leave {wanted[layer]} experts or more (those "
                    f"that the policy chooses), found {left[layer]} in layer {layer}"
                )

    def deterministic(self, num_layers: int) -> Policy:
        return Biased(self.policy.deterministic(num_layers), self.bias)

    def biased(self, ranking: Float[Array, "E"]) -> Float[Array, "E"]:
        """What experts are ranked by."""
        return ranking + jnp.asarray(self.bias)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        chosen = self.policy.choose(self.biased(ranking), noise)
        return without_banned(chosen, jnp.asarray(self.bias))

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

    def numbers(self, num_experts: int) -> PolicyNumbers | None:
        """See `Policy`; None about a policy that has a bias."""
        found = numbers_of(self.policy, num_experts)
        if found is None:
            return None
        changes = found.changes or Changes.none(np.shape(found.k), num_experts)
        if np.asarray(changes.bias).any():
            return None
        biased = np.ones(np.shape(found.k), bool)
        changes = changes._replace(bias=self.bias, gate_biased=biased)
        return found._replace(changes=changes)


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
    ranking that this policy is given: in `Gated(Biased(...))` the model's, in
    `Biased(Gated(...))` that with the bias. Where no router is uncertain it is
    `TopK()`.

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
        policy = require_one_pass(self.policy, "Gated").resolve(**fit)
        threshold = per_layer("threshold", self.threshold, num_layers, low=0)
        plain = policy.deterministic(num_layers)
        return replace(self, policy=policy, threshold=threshold, plain=plain)

    def check_layers(self, layers: Sequence[int]) -> None:
        """See `Policy`: as the policy within."""
        self.policy.check_layers(layers)

    def deterministic(self, num_layers: int) -> Policy:
        return self.policy.deterministic(num_layers)

    def uncertain(self, ranking: Float[Array, "E"]) -> Bool[Array, ""]:
        """Whether noise has a say for this token."""
        if self.by == "entropy":
            return entropy(ranking) > self.threshold
        return margin(ranking, self.width, most=self.width) < self.threshold

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

    def numbers(self, num_experts: int) -> PolicyNumbers | None:
        """See `Policy`; None about a gate, or where `plain` is not the best k."""
        found, plain = numbers_of(self.policy, num_experts), self.plain
        while isinstance(plain, Biased):
            plain = plain.policy
        if found is None or type(plain) is not TopK or plain.k is None:
            return None
        changes = found.changes or Changes.none(np.shape(found.k), num_experts)
        gated = (np.asarray(changes.entropy) >= 0) | (
            np.asarray(changes.margin) < np.inf
        )
        if gated.any() or plain.k is None or not np.array_equal(plain.k, found.k):
            return None
        not_biased = np.zeros(np.shape(found.k), bool)
        changes = changes._replace(gate_biased=not_biased, **{self.by: self.threshold})
        return found._replace(changes=changes)


MODIFIERS: dict[str, type[Policy]] = {
    "biased": Biased,
    "gated": Gated,
    "route-ensemble": RouteEnsemble,
}
"""By the names that `jaxmoe list policies` has for them."""


def without_banned(chosen: Int[Array, "K"], bias: Float[Array, "E"]) -> Int[Array, "K"]:
    """The experts that a bias of -inf does not ban; -1 in the places behind them.

    Where too few are left a policy fills its places with whom the rule forbids.
    """
    return packed(chosen, (chosen >= 0) & (bias[chosen] > -jnp.inf))


def margin(ranking: Float[Array, "E"], k: ArrayLike, *, most: int) -> Float[Array, ""]:
    """log p_(k) - log p_(k+1) in nats; inf where no expert is left out.

    most: the largest k. NaN where the rule forbids both experts.
    """
    best = ranked(ranking, min(most + 1, ranking.shape[0])).scores
    apart = best[k - 1] - best[jnp.minimum(k, best.shape[0] - 1)]
    return jnp.where(jnp.asarray(k) < ranking.shape[0], apart, jnp.inf)


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
