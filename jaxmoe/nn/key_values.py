"""Keys and values: what attention remembers of positions already passed.

Laid out [L, rows, G, C, A] so that one head's positions lie together. C is a multiple
of `CHUNK`, the step in which attention walks it on CPU: what is allocated beyond the
filled part is not felt, and there not read. What lies between the filled part and the
end of its chunk is zero.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import AttentionConfig
from jaxmoe.nn.base import Held
from jaxmoe.ops.attention import CHUNK
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KeyValues:
    """Keys and values of L layers, a `LayerState`.

    k, v: [L, B, G, C, A], rows B of prompts or of slots. Where a layout has more
      devices to divide the heads than there are, each is there several times.
    """

    k: Leaf
    v: Leaf

    @classmethod
    def empty(
        cls,
        config: AttentionConfig,
        *,
        layers: int,
        rows: int,
        size: int,
        dtype: Any,
        layout: Layout,
    ) -> "KeyValues":
        """Room for `size` positions in each row."""
        assert size % CHUNK == 0, size
        heads = layout.cached_heads(config.num_kv_heads)
        shape = (layers, rows, heads, size, config.head_dim)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    @classmethod
    def specs(cls, layout: Layout, rows: str | None) -> "KeyValues":
        """See `LayerState`."""
        both: Any = layout.spec(None, rows, "heads")
        return cls(both, both)

    @classmethod
    def held(cls, config: AttentionConfig, *, dtype: Any, layout: Layout) -> Held:
        """See `LayerState`.

        Where key-value heads are fewer than the devices that divide the query heads,
        each device has one that others have too.
        """
        heads = layout.cached_heads(config.num_kv_heads)
        own = heads // layout.size(layout.rules.heads)
        return Held(2 * own * config.head_dim * jnp.dtype(dtype).itemsize)

    @property
    def size(self) -> int:
        """C, the positions allocated in each row."""
        return self.k.shape[3]

    def put(self, index: Array, prompts: "KeyValues", row: Array) -> "KeyValues":
        """See `LayerState`.

        `prompts` come in whole chunks, zero past their lengths: chunks beyond them
        stay as they were, and are never read.
        """
        assert prompts.size % CHUNK == 0

        def place(stack: Array, new: Array) -> Array:
            new = lax.dynamic_slice_in_dim(new, row, 1, axis=1).astype(stack.dtype)
            return lax.dynamic_update_slice(stack, new, (0, index, 0, 0, 0))

        return jax.tree.map(place, self, prompts)

    def fork(self, prefix: "KeyValues", prompt: Array, new: Array) -> "KeyValues":
        """See `LayerState`: zeros, so that no NaN of its last use stays."""
        rows = jnp.argsort(~new, stable=True)  # those that begin come first

        def clear_one(index: Array, state: "KeyValues") -> "KeyValues":
            def zero(stack: Array) -> Array:
                shape = (stack.shape[0], 1, *stack.shape[2:])
                empty = jnp.zeros(shape, stack.dtype)
                return lax.dynamic_update_slice_in_dim(stack, empty, rows[index], 1)

            return jax.tree.map(zero, state)

        return lax.fori_loop(0, new.sum(), clear_one, self)

    def write(
        self, at: Array | int, k: Array, v: Array, position: Array
    ) -> "KeyValues":
        """With one position a row in layer `at`: k and v [B, G, A] at `position` [B].

        The caller has checked that it fits: past the end nothing is written.
        """
        row = jnp.arange(position.shape[0])

        def put(stack: Array, new: Array) -> Array:
            new = new.astype(stack.dtype)
            return stack.at[at, row, :, position].set(new, mode="drop")

        return KeyValues(put(self.k, k), put(self.v, v))

    def grow(self, size: int) -> "KeyValues":
        """See `LayerState`."""
        room = ((0, 0), (0, 0), (0, 0), (0, size - self.size), (0, 0))
        return jax.tree.map(lambda a: jnp.pad(a, room), self)
