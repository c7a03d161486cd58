"""One program for all policies: each slot has numbers of its own."""

from dataclasses import dataclass
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmoe.router.policies import (
    HeadAndTail,
    Policy,
    PolicyNumbers,
    Split,
    certain_head,
    pytree,
    ranked,
)
from jaxmoe.typing import Array, ArrayLike, Float, Int


@pytree("k", "reach")
@dataclass(frozen=True)
class PerSlot(HeadAndTail):
    """In each slot a built-in policy, given by its numbers.

    Slot s chooses exactly the experts, in the same order, that its own policy chooses
    from the same ranking and noise, whatever the other slots hold:

        head = ranks before k_keep, or with mass >= 0 the shortest run that reaches it
        tail = k - |head| drawn from the ranks before r with logits ranking / tau

    `TopK` is a head of all k and no rank to draw from, so that noise has no say.

    Attributes:
      values: The numbers, [S, L] each; [S] in a policy of one layer, and scalars in a
        policy of one slot.
      k: K, experts chosen for each token; the same in all slots.
      reach: Ranks looked at; no r may be larger.
    """

    per_slot: ClassVar[bool] = True
    values: PolicyNumbers
    k: int
    reach: int

    @classmethod
    def empty(
        cls,
        slots: int,
        *,
        k: int,
        num_experts: int,
        num_layers: int,
        reach: int | None = None,
    ) -> Self:
        """`TopK` in all slots.

        Args:
          slots: S.
          k: The model's experts per token.
          num_experts: E.
          num_layers: L, dense layers counted.
          reach: The largest r that a slot may get; None for E, which allows any policy
            (`GumbelTopK` needs it). Fewer ranks are found faster: of 128 experts, 32
            cost what `ExpertSample` costs and all cost what `GumbelTopK` does, 8 times
            as much on CPU. Choices do not depend on it.
        """
        reach = num_experts if reach is None else reach
        if not k <= reach <= num_experts:
            bounds = f"{k}..{num_experts} (the model's k and experts)"
            raise ValueError(f"policy: reach must be {bounds}, found {reach}")
        all_k = jnp.full((slots, num_layers), k, jnp.int32)
        cold = jnp.zeros((slots, num_layers), jnp.float32)
        values = PolicyNumbers(all_k, all_k, all_k, tau=cold, mass=cold - 1)
        return cls(values, k=k, reach=reach)

    @property
    def width(self) -> int:
        """K."""
        return self.k

    @property
    def slots(self) -> int:
        """S."""
        return np.shape(self.values.k)[0]

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> Self:
        """Itself, where it fits the model.

        Raises:
          ValueError: another k, number of layers, or a reach past the experts.
        """
        found = (self.k, self.reach, *np.shape(self.values.k)[1:])
        if self.k != k or self.reach > num_experts or found[2:] != (num_layers,):
            raise ValueError(
                f"policy: k, reach and layers must be {k}, at most {num_experts}, "
                f"{num_layers} (the model's), found {found}; build it with "
                "PerSlot.empty from the model's numbers"
            )
        return self

    def deterministic(self, num_layers: int) -> Self:
        """`TopK` of as many experts in each slot."""
        k, cold = self.values.k, jnp.zeros_like(self.values.tau)
        values = PolicyNumbers(k, k, k, tau=cold, mass=cold - 1)
        return type(self)(values, self.k, self.reach)

    def at_layer(self, layer: int) -> Self:
        """The policy of one layer, [S] each."""
        return jax.tree.map(lambda values: values[:, layer], self)

    def numbers_of(self, policy: Policy, num_experts: int) -> PolicyNumbers:
        """The numbers of a resolved policy, after checks that a slot can hold it.

        Raises:
          ValueError: a policy of another width, one that looks at more ranks than
            `reach`, or one without numbers.
        """
        name = type(policy).__name__
        numbers = policy.numbers(num_experts)
        if numbers is None:
            raise ValueError(
                f"policy: {name} has no numbers that a slot can hold; implement "
                f"{name}.numbers, or run it in an engine of its own"
            )
        if policy.width != self.k:
            raise ValueError(
                f"policy: {name} must choose {self.k} experts per token, as the other "
                f"slots do, found {policy.width}; run it in an engine of its own, or "
                f"take fewer by TopK with k below {self.k}"
            )
        r = numbers.r
        if not isinstance(r, Tracer) and np.max(r) > self.reach:
            raise ValueError(
                f"policy: r of {name} must be at most {self.reach} (the ranks that the "
                f"slots look at), found {np.max(r)}; build the slots with a reach of "
                f"{np.max(r)} or more"
            )
        return numbers

    def with_slots(self, slots: Int[ArrayLike, "N"], numbers: PolicyNumbers) -> Self:
        """The policy in which some slots have these numbers; jittable.

        Args:
          slots: Their indices; one that is S or larger changes nothing.
          numbers: [L] for all of them, or [N, L]; from `numbers_of`.
        """
        values = jax.tree.map(
            lambda old, new: jnp.asarray(old).at[slots].set(new, mode="drop"),
            self.values,
            numbers,
        )
        return type(self)(values, self.k, self.reach)

    def split(self, ranking: Float[Array, "E"]) -> Split:
        """Head and candidates of one token, in a policy of one slot."""
        best = ranked(ranking, self.reach)
        rank = jnp.arange(self.reach)
        values = self.values
        certain = certain_head(ranking, best, mass=values.mass, k=self.k)
        certain = jnp.minimum(certain, values.k)
        size = jnp.where(jnp.asarray(values.mass) >= 0, certain, values.k_keep)
        return Split(best, rank < size, rank < values.r, values.tau, values.k)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        """Experts of one token, in a policy of one slot.

        noise: None where every slot is deterministic.
        """
        return super().choose(
            ranking, jnp.zeros_like(ranking) if noise is None else noise
        )
