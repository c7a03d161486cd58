"""Keys and values: what attention remembers of positions already passed."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxmoe.config import AttentionConfig
from jaxmoe.nn.base import Held
from jaxmoe.nn.positions import Positions
from jaxmoe.ops.attention import CHUNK
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Leaf, pytree


@pytree()
@dataclass(frozen=True)
class KeyValues(Positions):
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

    def write(
        self, at: Array | int, k: Array, v: Array, position: Array
    ) -> "KeyValues":
        """With one position a row in layer `at`: k and v [B, G, A] at `position` [B].

        The caller has checked that it fits: past the end nothing is written.
        """
        return self._write(at, position, k, v)
