"""What prompts leave behind: their states, and what follows them.

A prompt is computed once and read by all its samples; each sample's own positions go to
states of its slot (`jaxmoe.nn.decoder.empty_states`).
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.execution import Execution
from jaxmoe.nn.decoder import empty_states, state_specs
from jaxmoe.ops.attention import CHUNK
from jaxmoe.typing import Array, Bool, Int, Leaf, pytree


def bucket(length: int, smallest: int = CHUNK) -> int:
    """The allocated size for `length` positions: doubling from `smallest`."""
    size = smallest
    while size < length:
        size *= 2
    return size


@pytree()
@dataclass(frozen=True)
class PrefixCache:
    """Prompts in flight: shared by samples, read-only while they decode.

    states: one a stack of layers, rows P. length: tokens of each prompt, int32 [P]; 0
    in an entry not used. logits: of the token after the prompt, float32 [P, V].
    routes: experts of the prompt's last token, int16 [P, L, K]. route_logprobs: of
    these under the policy, float32 [P, L]; 0 where a prompt is routed without noise.
    """

    states: tuple[Any, ...]
    length: Leaf
    logits: Leaf
    routes: Leaf
    route_logprobs: Leaf

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        execution: Execution,
        *,
        prompts: int,
        size: int,
        width: int,
        dtype: Any,
    ) -> "PrefixCache":
        """Room for `prompts` prompts of up to `size` tokens, K = `width`."""
        return cls(
            states=empty_states(
                config, execution, rows=prompts, size=size, dtype=dtype
            ),
            length=jnp.zeros(prompts, jnp.int32),
            logits=jnp.zeros((prompts, config.vocab_size), jnp.float32),
            routes=jnp.full((prompts, config.num_layers, width), -1, jnp.int16),
            route_logprobs=jnp.zeros((prompts, config.num_layers), jnp.float32),
        )

    @classmethod
    def specs(cls, config: ModelConfig, execution: Execution) -> "PrefixCache":
        """How each array lies on a mesh: states divided, all else everywhere."""
        whole: Any = execution.layout.spec()
        states = state_specs(config, execution, None)
        return cls(states, whole, whole, whole, whole)

    def put(self, entries: Int[Array, "B"], prompts: "PrefixCache") -> "PrefixCache":
        """`self` with entry `entries[b]` replaced by prompt b of `prompts`.

        A prompt of no tokens is left out.
        """

        # A policy of fewer experts than there are places for.
        more = self.routes.shape[2] - prompts.routes.shape[2]
        routes = jnp.pad(
            prompts.routes, ((0, 0), (0, 0), (0, more)), constant_values=-1
        )
        prompts = replace(prompts, routes=routes)

        def put_one(index: Array, cache: "PrefixCache") -> "PrefixCache":
            entry = entries[index]
            one: Any = jax.tree.map(
                lambda a: lax.dynamic_slice_in_dim(a, index, 1), prompts.rows()
            )
            place = lambda old, new: lax.dynamic_update_slice_in_dim(old, new, entry, 0)  # noqa: E731
            length, logits, routes, chances = jax.tree.map(place, cache.rows(), one)
            pairs = zip(cache.states, prompts.states, strict=True)
            states = tuple(old.put(entry, new, index) for old, new in pairs)
            return PrefixCache(states, length, logits, routes, chances)

        def put_next(index: Array, cache: "PrefixCache") -> "PrefixCache":
            there = prompts.length[index] > 0
            return lax.cond(there, put_one, lambda _, cache: cache, index, cache)

        count = prompts.length.shape[0]
        if count == 1:
            return put_one(jnp.int32(0), self)
        return lax.fori_loop(0, count, put_next, self)

    def rows(self) -> tuple[Leaf, Leaf, Leaf, Leaf]:
        """All that has a first axis of prompts."""
        return self.length, self.logits, self.routes, self.route_logprobs


def fork(
    states: tuple[Any, ...],
    prefix: PrefixCache,
    prompt: Int[Array, "S"],
    new: Bool[Array, "S"],
) -> tuple[Any, ...]:
    """States of slots, those in `new` begun after entry `prompt` of the prefix."""
    return tuple(
        own.fork(before, prompt, new)
        for own, before in zip(states, prefix.states, strict=True)
    )


def room(states: tuple[Any, ...]) -> int | None:
    """Positions that a slot's states have room for; None where none of them grows."""
    sizes = [state.size for state in states if state.size is not None]
    return min(sizes) if sizes else None
