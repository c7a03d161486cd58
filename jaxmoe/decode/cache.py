"""What prompts leave behind: their states, and what follows them.

A prompt is computed once and read by all its samples; each sample's own positions go to
states of its slot (`jaxmoe.nn.decoder.empty_states`).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.execution import Execution
from jaxmoe.nn.decoder import empty_states, state_specs
from jaxmoe.ops.attention import CHUNK
from jaxmoe.typing import Array, Bool, Int, Leaf


def bucket(length: int, smallest: int = CHUNK) -> int:
    """The allocated size for `length` positions: doubling from `smallest`."""
    size = smallest
    while size < length:
        size *= 2
    return size


@jax.tree_util.register_dataclass
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

    def put(self, index: Array, prompt: "PrefixCache") -> "PrefixCache":
        """`self` with entry `index` replaced by the one prompt of `prompt`."""
        assert prompt.length.shape == (1,)

        def place(whole: Array, part: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(whole, part, index, 0)

        return PrefixCache(
            states=tuple(
                old.put(index, new)
                for old, new in zip(self.states, prompt.states, strict=True)
            ),
            length=place(self.length, prompt.length),
            logits=place(self.logits, prompt.logits),
            routes=place(self.routes, prompt.routes),
            route_logprobs=place(self.route_logprobs, prompt.route_logprobs),
        )


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
