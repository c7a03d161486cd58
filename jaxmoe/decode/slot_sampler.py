"""One program for all samplers: each slot has numbers of its own."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmoe.decode.sampler import TokenSampler, locate
from jaxmoe.typing import Array, Bool, Float, Int, Key, pytree

CANDIDATES = 128
"""The most likely tokens that are looked at where they are enough: top_k up to 120."""


class SamplerNumbers(NamedTuple):
    """A `TokenSampler` by its numbers, those that filter nothing included.

    temperature: float32. top_k: int32, 0 for all tokens. top_p: float32, 1 for all.
    min_p: float32, 0 for none. candidates: int32, so many of the most likely tokens are
    enough to draw from; 0 for all tokens.
    """

    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any
    candidates: Any


GREEDY = SamplerNumbers(
    np.float32(0), np.int32(1), np.float32(1), np.float32(0), np.int32(1)
)
"""Of slots without an answer; a resolved sampler has other candidates."""


def numbers_of(sampler: TokenSampler) -> SamplerNumbers:
    """The numbers of a resolved sampler.

    Raises:
      TypeError: one that is no `TokenSampler`, or draws otherwise.
    """
    if type(sampler) is not TokenSampler:
        raise TypeError(
            f"sampler must be a TokenSampler, whose numbers a slot can hold, found "
            f"{sampler!r}; run it in an engine of its own, Engine(model, sampler=...)"
        )
    candidates = sampler.candidates or 0
    given = (
        (sampler.temperature, np.float32, 0),
        (sampler.top_k, np.int32, 0),
        (sampler.top_p, np.float32, 1),
        (sampler.min_p, np.float32, 0),
    )
    values: list[Any] = [
        np.asarray(off if value is None else value, kind) for value, kind, off in given
    ]
    few = np.int32(candidates if candidates <= CANDIDATES else 0)
    return SamplerNumbers(values[0], values[1], values[2], values[3], few)


@pytree()
@dataclass(frozen=True)
class SlotSampler:
    """In each slot a `TokenSampler`, given by its numbers, [S] each.

    A slot draws what its own sampler draws, whatever the other slots hold: what is
    computed for some slots only (all tokens looked at, and filtered) is either not
    computed or not looked at in the others.
    """

    values: SamplerNumbers

    @classmethod
    def empty(cls, slots: int) -> Self:
        """Greedy in all slots, in NumPy arrays."""
        return cls(SamplerNumbers(*(np.full(slots, value) for value in GREEDY)))

    def draw_each(
        self, keys: Key[Array, "S"], logits: Float[Array, "S V"]
    ) -> Int[Array, "S"]:
        """One token of each slot, int32."""
        candidates = jnp.asarray(self.values.candidates)
        rest = candidates == 0
        # Batches are mostly alike. What slots without an answer draw is not looked at.
        near = lax.cond(
            (candidates > GREEDY.candidates).any(),
            lambda: self._of_the_best(keys, logits),
            lambda: jnp.zeros(rest.shape, jnp.int32),
        )

        def far() -> Array:
            return jnp.where(rest, self._of_all_tokens(keys, logits, rest), near)

        return lax.cond(rest.any(), far, lambda: near)

    def _of_the_best(
        self, keys: Key[Array, "S"], logits: Float[Array, "S V"]
    ) -> Int[Array, "S"]:
        """A token of each slot, which may be any where all are looked at."""
        v, count = self.values, min(CANDIDATES, logits.shape[1])
        few = TokenSampler(v.temperature, v.top_k, v.top_p, v.min_p)
        draw = lambda sampler, *row, most: sampler.draw_ranked(*row, count, most)  # noqa: E731
        return jax.vmap(draw)(few, keys, logits, most=jnp.asarray(v.candidates))

    def _of_all_tokens(
        self,
        keys: Key[Array, "S"],
        logits: Float[Array, "S V"],
        wanted: Bool[Array, "S"],
    ) -> Int[Array, "S"]:
        """A token of each slot, which may be any where it is not `wanted`."""
        v = self.values
        each = TokenSampler(v.temperature, v.top_k, v.top_p)
        best, greedy, weights = jax.vmap(TokenSampler.weigh)(each, logits)
        weights = lax.optimization_barrier(weights)
        cuts = (jnp.asarray(v.top_k) > 0) | (jnp.asarray(v.top_p) < 1)
        # 62 passes over all tokens, which no slot needs as long as none asks for them.
        weights = lax.cond(
            (cuts & wanted & ~greedy).any(),
            lambda: jax.vmap(TokenSampler.filtered)(each, weights),
            lambda: weights,
        )
        kept = jnp.where(weights >= jnp.asarray(v.min_p)[:, None], weights, 0.0)
        return jnp.where(greedy, best, jax.vmap(locate)(keys, kept))
