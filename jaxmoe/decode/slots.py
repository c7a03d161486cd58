"""The samples under way: what goes in and out of a step."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmoe.decode.cache import PrefixCache
from jaxmoe.nn.base import Step
from jaxmoe.ops.grouping import cut_blocks
from jaxmoe.random.keys import position_key
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Leaf, pytree

PROMPT_BLOCK = 8
"""Slots that read a prompt's prefix together, where several prompts are in flight."""


@pytree()
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

    @property
    def drawn(self) -> Array:
        """Tokens that each slot's sample has drawn, int32 [S]."""
        return self.position - self.start + 1

    def position_keys(self, position: Array) -> Array:
        """k_it of each slot's sample at `position` [S]."""
        return jax.vmap(position_key)(jax.random.wrap_key_data(self.key_data), position)

    @classmethod
    def empty(cls, slots: int) -> "Slots":
        """Slots with no sample in them.

        Every array has its own buffer: programs take slots as theirs to overwrite.
        """
        zeros = lambda: jnp.zeros(slots, jnp.int32)  # noqa: E731
        key_data = jnp.zeros((slots, 2), jnp.uint32)
        inactive = jnp.zeros(slots, bool)
        return cls(key_data, zeros(), zeros(), zeros(), zeros(), zeros(), inactive)

    @classmethod
    def specs(cls, layout: Layout) -> "Slots":
        """How each array lies on a mesh."""
        own: Any = layout.spec("slots")
        return cls(own, own, own, own, own, own, own)


class Running(NamedTuple):
    """What a step carries on: the slots, and their layers' states, one a stack.

    history: what slots have drawn (`jaxmoe.decode.adjustments.History`), where some
    slot's sampler asks; else None.
    """

    slots: Any
    states: Any
    history: Any = None


class SlotRules(NamedTuple):
    """How slots draw.

    policy: a resolved policy for all slots, or a `PerSlot`. sampler: a resolved
    `TokenSampler` for all slots, or a `SlotSampler`. stop_ids: int32 [S, X], tokens
    that end each slot's answer, padded with -1. adjustments: what each slot's sampler
    changes in the logits (`jaxmoe.decode.adjustments.Adjustments`), or None. allowed:
    int32 [S, W], a bit for each token that may come next, for one step; or None.
    tops: bool [], whether the most likely tokens that are recorded are looked up; None
    for yes.
    """

    policy: Any
    sampler: Any
    stop_ids: Any
    adjustments: Any = None
    allowed: Any = None
    tops: Any = None


class Admission(NamedTuple):
    """New samples for some slots; what it holds of other slots is not looked at.

    admitted: bool [S], which slots get one. key_data: uint32 [S, 2], their keys k_i.
    prompt: int32 [S], entries of their prompts in the prefix cache. limit: int32 [S],
    the most tokens of each answer.
    """

    admitted: Any
    key_data: Any
    prompt: Any
    limit: Any


class Turn(NamedTuple):
    """How far a segment goes.

    steps: the most steps. enough: stop early when fewer slots than this still draw.
    routes: int16 [S, M, L, K], experts to take in each step instead, where not -1
    (replay); or None.
    """

    steps: Any
    enough: Any = 1
    routes: Any = None


def step_of(prefix: PrefixCache, slots: Slots) -> Step:
    """What mixers are told of the slots; those that share a prompt read it together."""
    groups = jnp.where(slots.active, slots.prompt, -1)
    prompts = prefix.length.shape[0]
    block = min(PROMPT_BLOCK, slots.active.shape[0])
    return Step(
        positions=slots.position,
        start=slots.start,
        active=slots.active,
        longest=jnp.where(slots.active, slots.position - slots.start + 1, 0).max(),
        prompt_lengths=prefix.length,
        blocks=cut_blocks(groups, prompts, block) if prompts > 1 else None,
        block=block,
    )


def default_slots(samples: int, layout: Layout | None = None) -> int:
    """Slots for so many samples: a power of two, at most 64; on a mesh as many more
    as it takes for its devices to share them equally."""
    slots = min(64, 1 << max(0, samples - 1).bit_length())
    return slots if layout is None else layout.slots(slots)
