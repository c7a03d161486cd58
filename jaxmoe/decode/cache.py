"""What was computed for positions already passed.

The *prefix* of a prompt is computed once and read by all its samples; each sample's
own positions go to its row of the *suffix*. Both are laid out [.., G, C, A] so that
one head's positions lie together. C is a multiple of `CHUNK`, the step in which
attention walks it on CPU: what is allocated beyond the filled part is not felt, and
there not read. What lies between the filled part and the end of its chunk is zero.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.ops.attention.chunked import CHUNK
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Leaf


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

    k, v: one array a layer, [P, G, C, A]. Where a layout has more devices to divide
      the heads than there are, each is there several times.
    length: tokens of each prompt, int32 [P]; 0 in an entry not used.
    logits: of the token after the prompt, float32 [P, V].
    routes: experts of the prompt's last token, int16 [P, L, K].
    """

    k: tuple[Leaf, ...]
    v: tuple[Leaf, ...]
    length: Leaf
    logits: Leaf
    routes: Leaf

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        *,
        prompts: int,
        size: int,
        width: int,
        dtype,
        layout: Layout | None = None,
    ) -> "PrefixCache":
        """Room for `prompts` prompts of up to `size` tokens, K = `width`."""
        return cls(
            k=_zeros(config, prompts, size, dtype, layout),
            v=_zeros(config, prompts, size, dtype, layout),
            length=jnp.zeros(prompts, jnp.int32),
            logits=jnp.zeros((prompts, config.vocab_size), jnp.float32),
            routes=jnp.full((prompts, config.num_layers, width), -1, jnp.int16),
        )

    @classmethod
    def specs(cls, num_layers: int, layout: Layout) -> "PrefixCache":
        """How each array lies on a mesh: heads divided, all else everywhere."""
        heads: Any = (layout.spec(None, "heads"),) * num_layers
        whole: Any = layout.spec()
        return cls(k=heads, v=heads, length=whole, logits=whole, routes=whole)

    def put(self, index: Array, prompt: "PrefixCache") -> "PrefixCache":
        """`self` with entry `index` replaced by the one prompt of `prompt`.

        `prompt` comes in whole chunks, zero past its length: chunks beyond them stay
        as they were, and are never read.
        """
        assert prompt.length.shape == (1,)
        assert prompt.k[0].shape[2] % CHUNK == 0

        def place(whole: Array, part: Array) -> Array:
            start = (index, *(0 for _ in whole.shape[1:]))
            return lax.dynamic_update_slice(whole, part.astype(whole.dtype), start)

        return jax.tree.map(place, self, prompt)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SuffixCache:
    """Each slot's own positions, counted from the end of its prompt.

    k, v: one array a layer, [S, G, C, A].
    """

    k: tuple[Leaf, ...]
    v: tuple[Leaf, ...]

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        *,
        slots: int,
        size: int,
        dtype,
        layout: Layout | None = None,
    ) -> "SuffixCache":
        """Room for `size` positions in each of `slots` slots."""
        return cls(
            _zeros(config, slots, size, dtype, layout),
            _zeros(config, slots, size, dtype, layout),
        )

    @classmethod
    def specs(cls, num_layers: int, layout: Layout) -> "SuffixCache":
        """How each array lies on a mesh: slots and heads divided."""
        both: Any = (layout.spec("slots", "heads"),) * num_layers
        return cls(k=both, v=both)

    @property
    def size(self) -> int:
        """C, the positions allocated for each slot."""
        return self.k[0].shape[2]

    def clear(self, slots: Array) -> "SuffixCache":
        """Zeros in the slots where `slots` [S] is true, lest a NaN be inherited."""
        rows = jnp.argsort(~slots, stable=True)  # those to clear come first

        def clear_one(index: Array, cache: "SuffixCache") -> "SuffixCache":
            def zero(array: Array) -> Array:
                empty = jnp.zeros((1, *array.shape[1:]), array.dtype)
                return lax.dynamic_update_slice_in_dim(array, empty, rows[index], 0)

            return jax.tree.map(zero, cache)

        return lax.fori_loop(0, slots.sum(), clear_one, self)

    def write(self, layer: int, k: Array, v: Array, index: Array) -> "SuffixCache":
        """`self` with one position a slot: k and v [S, G, A] at `index` [S].

        The caller has checked that `index` fits: past the end nothing is written.
        """
        slot = jnp.arange(index.shape[0])

        def put(cache: tuple[Array, ...], new: Array) -> tuple[Array, ...]:
            one = (
                cache[layer]
                .at[slot, :, index]
                .set(new.astype(cache[layer].dtype), mode="drop")
            )
            return (*cache[:layer], one, *cache[layer + 1 :])

        return SuffixCache(put(self.k, k), put(self.v, v))


def grow(array: Array, size: int) -> Array:
    """Keys or values [S, G, C, A] of one layer with room for `size` positions."""
    return jnp.pad(array, ((0, 0), (0, 0), (0, size - array.shape[2]), (0, 0)))


def _zeros(
    config: ModelConfig, rows: int, size: int, dtype, layout: Layout | None
) -> tuple[Array, ...]:
    assert size % CHUNK == 0, size
    heads = (lambda own: own) if layout is None else layout.cached_heads
    return tuple(
        jnp.zeros((rows, heads(m.num_kv_heads), size, m.head_dim), dtype)
        for m in (layer.mixer for layer in config.layers)
    )
