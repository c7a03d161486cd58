"""One program for all policies: each slot has numbers of its own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.router.modifiers import entropy, margin, without_banned
from jaxmoe.router.policies import (
    Changes,
    HeadAndTail,
    Policy,
    PolicyNumbers,
    Split,
    certain_head,
    certainty_of_set,
    drop_out,
    log_probability_of_dropout,
    numbers_of,
    ranked,
)
from jaxmoe.typing import Array, Bool, Float, Int, pytree


@pytree("k", "reach")
@dataclass(frozen=True)
class PerSlot(HeadAndTail):
    """In each slot a built-in policy, given by its numbers.

    Slot s chooses exactly the experts, in the same order, that its own policy chooses
    from the same ranking and noise, whatever the other slots hold:

        head = ranks before k_keep, or with mass >= 0 the shortest run that reaches it
        tail = k - |head| drawn from the ranks before r with logits ranking / tau

    (k_min where the head is shorter than that, and nothing otherwise, where k_min < k.)
    `TopK` is a head of all k and no rank to draw from, so that noise has no say.

    With changes, all of that is done with ranking + bias; where the router is certain
    of a token, by a gate, as `TopK` of as many experts; and of the experts chosen some
    are left out, and those that are banned. Without them none of that is computed.

    Attributes:
      values: The numbers, [S, L] each (bias: [S, L, E]); [S] in a policy of one layer,
        and scalars in a policy of one slot.
      k: K, places for experts; no slot's k may be larger.
      reach: Ranks looked at while no slot's r is larger; else all E are. Of 128
        experts, the best 32 are found on CPU in an eighth of the time that ranking
        all takes. Choices do not depend on it.
    """

    values: PolicyNumbers
    k: int
    reach: int

    @classmethod
    def empty(cls, slots: int, *, k: int, num_experts: int, num_layers: int) -> Self:
        """`TopK` in all slots, in NumPy arrays.

        Args:
          slots: S.
          k: The model's experts per token.
          num_experts: E.
          num_layers: L, dense layers counted.
        """
        shape = (slots, num_layers)
        k_keep, r = np.full(shape, k, np.int32), np.full(shape, k, np.int32)
        tau, mass = np.zeros(shape, np.float32), np.full(shape, -1, np.float32)
        most, least = np.full(shape, k, np.int32), np.full(shape, k, np.int32)
        values = PolicyNumbers(most, k_keep, r, tau, mass, least)
        return cls(values, k=k, reach=min(4 * k, num_experts))

    @classmethod
    def for_model(cls, slots: int, config: ModelConfig) -> Self:
        """`TopK` in all slots of a model; of nothing in one without experts."""
        return cls.empty(
            slots,
            k=config.experts_per_token or 1,
            num_experts=config.num_experts or 1,
            num_layers=config.num_layers,
        )

    @property
    def width(self) -> int:
        """K."""
        return self.k

    def at_layer(self, layer: Array | int) -> Self:
        """The policy of one layer, [S] each."""
        return jax.tree.map(lambda values: jnp.asarray(values)[:, layer], self)

    def numbers_of(self, policy: Policy, num_experts: int) -> PolicyNumbers:
        """The numbers of a resolved policy, after checks that a slot can hold it.

        Raises:
          ValueError: a policy that is wider than K, or one without numbers.
        """
        name = type(policy).__name__
        numbers = numbers_of(policy, num_experts)
        if numbers is None:
            raise ValueError(
                f"policy: {name} has no numbers that a slot can hold; implement "
                f"{name}.numbers, or run it in an engine of its own, "
                "Engine(model, policy=...)"
            )
        if policy.width > self.k:
            raise ValueError(
                f"policy: {name} must choose at most {self.k} experts per token (the "
                f"model's k), as the other slots do, found {policy.width}; run it in "
                "an engine of its own, Engine(model, policy=...)"
            )
        return numbers

    def any_noisy(self) -> Array:
        """Whether noise has a say in any slot and layer."""
        v = self.values
        tau, r, k_keep = map(jnp.asarray, (v.tau, v.r, v.k_keep))
        drawn = ((tau > 0) & (r > k_keep)).any()
        if v.changes is None:
            return drawn
        return drawn | (jnp.asarray(v.changes.q) > 0).any()

    def choose_each(
        self, ranking: Float[Array, "S E"], noise: Float[Array, "S E"]
    ) -> Int[Array, "S K"]:
        """Experts of each slot, in a policy of one layer."""
        each = jax.vmap(lambda policy, row, noise: policy.choose(row, noise))
        drawn = lambda: self._looking_far(ranking, lambda p: each(p, ranking, noise))  # noqa: E731
        if self.values.changes is not None:
            return drawn()  # heads of another ranking, or with places left empty
        return lax.cond(self._all_head(), lambda: self._best_each(ranking), drawn)

    def _all_head(self) -> Array:
        """Whether the best ranks alone are chosen in every slot, whatever the noise.

        Not asked where there are changes, of which the ranks say nothing.
        """
        v = self.values
        mass, k_keep, k_min = map(jnp.asarray, (v.mass, v.k_keep, v.k_min))
        return ((mass < 0) & (k_keep >= k_min)).all()

    def _best_each(self, ranking: Float[Array, "S E"]) -> Int[Array, "S K"]:
        """What `choose_each` gives where `_all_head`: far less to compute."""
        best = jax.vmap(lambda row: ranked(row, self.k).experts)(ranking)
        kept = jnp.arange(self.k)[None] < jnp.asarray(self.values.k_keep)[:, None]
        return jnp.where(kept, best, -1)

    def log_probability_each(
        self, ranking: Float[Array, "S E"], experts: Int[Array, "S K"]
    ) -> Float[Array, "S"]:
        """`log_probability` of each slot, in a policy of one layer."""
        each = jax.vmap(lambda policy, *row: policy.log_probability(*row))
        return self._looking_far(ranking, lambda p: each(p, ranking, experts))

    def _looking_far(
        self, ranking: Float[Array, "S E"], of: Callable[[Self], Array]
    ) -> Array:
        """What `of` makes of this policy, all ranks in reach if any slot needs them."""
        experts = ranking.shape[-1]
        if self.reach >= experts:
            return of(self)
        far = replace(self, reach=experts)
        needed = (jnp.asarray(self.values.r) > self.reach).any()
        return lax.cond(needed, lambda: of(far), lambda: of(self))

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        """Experts of one token, in a policy of one slot."""
        if self.values.changes is None:
            return super().choose(ranking, noise)
        assert noise is not None
        bias = jnp.asarray(self.values.changes.bias)
        own, q = self._of_token(ranking)
        chosen = own.choose(ranking + bias, noise)
        left = drop_out(chosen, ranking + bias, noise, jnp.maximum(q, 0.0))
        return without_banned(jnp.where(q >= 0, left, chosen), bias)

    def log_probability(
        self, ranking: Float[Array, "E"], experts: Int[Array, "K"]
    ) -> Float[Array, ""]:
        """See `Policy`, in a policy of one slot."""
        if self.values.changes is None:
            return super().log_probability(ranking, experts)
        bias = jnp.asarray(self.values.changes.bias)
        own, q = self._of_token(ranking)
        biased, none = ranking + bias, jnp.zeros_like(ranking)
        law = own.log_probability(biased, experts)
        dropout = log_probability_of_dropout(
            experts, own.choose(biased, none), biased, jnp.maximum(q, 0.0)
        )
        # As of `Biased`.
        few = (bias != 0).any() & ((biased > -jnp.inf).sum() < self.values.k)
        all_left = certainty_of_set(experts, self.choose(ranking, none))
        return jnp.where(few, all_left, jnp.where(q >= 0, dropout, law))

    def _of_token(
        self, ranking: Float[Array, "E"]
    ) -> tuple[Self, Float[Array, ""] | Float[np.ndarray, ""]]:
        """Without changes, as the router's certainty of a token has it; and q or -1."""
        v, changes = self.values, self.values.changes
        assert changes is not None
        noisy = self._uncertain(changes, ranking)
        without = v._replace(changes=None)
        certain = without._replace(k_keep=v.k, r=v.k, tau=0.0, mass=-1.0, k_min=v.k)
        pick = lambda a, b: jnp.where(noisy, a, b)  # noqa: E731
        own = replace(self, values=jax.tree.map(pick, without, certain))
        return own, pick(changes.q, -1.0)

    def _uncertain(
        self, changes: Changes, ranking: Float[Array, "E"]
    ) -> Bool[Array, ""]:
        """Whether noise has a say for this token; everywhere without a gate."""
        seen = jnp.where(changes.gate_biased, ranking + changes.bias, ranking)
        apart = margin(seen, self.values.k, most=self.k)
        spread = entropy(seen)
        # Either number may be NaN, which is no token's without a gate.
        wide = (spread > changes.entropy) | (jnp.asarray(changes.entropy) < 0)
        near = (apart < changes.margin) | (jnp.asarray(changes.margin) == jnp.inf)
        return wide & near

    def split(self, ranking: Float[Array, "E"]) -> Split:
        """Head and candidates of one token, in a policy of one slot."""
        best = ranked(ranking, self.reach)
        rank = jnp.arange(self.reach)
        values = self.values
        certain = certain_head(ranking, best, mass=values.mass, k=self.k)
        certain = jnp.minimum(certain, values.k)
        size = jnp.where(jnp.asarray(values.mass) >= 0, certain, values.k_keep)
        count = jnp.maximum(size, values.k_min)
        return Split(best, rank < size, rank < values.r, values.tau, count)
