"""The samples under way: what goes in and out of a step."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxmoe.random.keys import position_key
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """The samples under way; every array is [S] but for `key_data`.

    key_data: uint32 [S, 2], the bits of each sample's key k_i, which is folded at
    every step and never drawn from. prompt: its entry in the prefix cache.
    start: length of its prompt, int32. position: where `token`, its last drawn token,
    stands. left: tokens it may still draw. active: whether it is still drawing.
    """

    key_data: Leaf
    prompt: Leaf
    start: Leaf
    position: Leaf
    token: Leaf
    left: Leaf
    active: Leaf

    def position_keys(self, position: Array) -> Array:
        """k_it of each slot's sample at `position` [S]."""
        return jax.vmap(position_key)(jax.random.wrap_key_data(self.key_data), position)

    @classmethod
    def empty(cls, slots: int) -> "Slots":
        """Slots with no sample in them."""
        zeros = jnp.zeros(slots, jnp.int32)
        key_data = jnp.zeros((slots, 2), jnp.uint32)
        inactive = jnp.zeros(slots, bool)
        return cls(key_data, zeros, zeros, zeros, zeros, zeros, inactive)

    @classmethod
    def specs(cls, layout: Layout) -> "Slots":
        """How each array lies on a mesh."""
        own: Any = layout.spec("slots")
        return cls(own, own, own, own, own, own, own)
