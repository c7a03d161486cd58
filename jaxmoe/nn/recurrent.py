"""What a recurrent mixer remembers: of fixed size, and each sample's own."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import DeltaConfig
from jaxmoe.nn.base import Held
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Leaf, pytree


@pytree()
@dataclass(frozen=True)
class Recurrent:
    """Memories of L layers, a `LayerState`; nothing is shared once samples have begun.

    memory: float32 [L, B, H, A, W], of H value heads (`ops.delta_rule`). inputs:
    [L, B, J, G, M], what the convolution had at the last J positions, M channels of
    each of G key heads; zero before the first position.
    """

    memory: Leaf
    inputs: Leaf

    @classmethod
    def empty(
        cls,
        config: DeltaConfig,
        *,
        layers: int,
        rows: int,
        size: int,
        dtype: Any,
        layout: Layout,
    ) -> "Recurrent":
        """The memory before any position; `size` does not matter."""
        memory, inputs = _shapes(config)
        return cls(
            jnp.zeros((layers, rows, *memory), jnp.float32),
            jnp.zeros((layers, rows, *inputs), dtype),
        )

    @classmethod
    def specs(cls, layout: Layout, rows: str | None) -> "Recurrent":
        """See `LayerState`."""
        memory: Any = layout.spec(None, rows, "key_heads")
        inputs: Any = layout.spec(None, rows, None, "key_heads")
        return cls(memory, inputs)

    @classmethod
    def held(cls, config: DeltaConfig, *, dtype: Any, layout: Layout) -> Held:
        """See `LayerState`: the same whatever the length."""
        memory, inputs = map(math.prod, _shapes(config))
        devices = layout.size(layout.rules.key_heads)
        whole = 4 * memory + jnp.dtype(dtype).itemsize * inputs
        return Held(position=0, fixed=whole // devices)

    @property
    def size(self) -> None:
        """It does not grow."""
        return None

    def put(self, index: Array, prompts: "Recurrent", row: Array) -> "Recurrent":
        """See `LayerState`."""

        def place(stack: Array, new: Array) -> Array:
            new = lax.dynamic_slice_in_dim(new, row, 1, axis=1).astype(stack.dtype)
            return lax.dynamic_update_slice_in_dim(stack, new, index, axis=1)

        return jax.tree.map(place, self, prompts)

    def fork(self, prefix: "Recurrent", prompt: Array, new: Array) -> "Recurrent":
        """See `LayerState`: the prompt's state, copied to those that begin alone."""
        rows = jnp.argsort(~new, stable=True)  # those that begin come first

        def copy_one(index: Array, state: "Recurrent") -> "Recurrent":
            return state.put(rows[index], prefix, prompt[rows[index]])

        return lax.fori_loop(0, new.sum(), copy_one, self)

    def write(
        self, at: Array | int, memory: Array, inputs: Array, active: Array
    ) -> "Recurrent":
        """With layer `at` as given in rows that are active; the others keep theirs.

        memory: [B, H, A, W]. inputs: [B, J, G, M]. active: bool [B].
        """

        def put(stack: Array, new: Array) -> Array:
            old = lax.dynamic_index_in_dim(stack, at, 0, keepdims=False)
            here = active.reshape(-1, *(1 for _ in new.shape[1:]))
            kept = jnp.where(here, new.astype(stack.dtype), old)
            return lax.dynamic_update_index_in_dim(stack, kept, at, 0)

        return Recurrent(put(self.memory, memory), put(self.inputs, inputs))

    def rewound(self, before: "Recurrent") -> "Recurrent":
        """See `LayerState`: a position would count twice."""
        return before

    def grow(self, size: int) -> "Recurrent":
        """See `LayerState`."""
        return self


def _shapes(c: DeltaConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of one row of one layer: memory and inputs."""
    channels = 2 * c.key_dim + c.values_per_key * c.value_dim
    return (
        (c.num_value_heads, c.key_dim, c.value_dim),
        (c.conv_size - 1, c.num_key_heads, channels),
    )
