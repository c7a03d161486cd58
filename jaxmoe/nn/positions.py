"""What is remembered of each position already passed, and walked by attention.

Laid out [L, rows, G, C, A] so that one head's positions lie together. C is a multiple
of `CHUNK`, the step in which attention walks it on CPU: what is allocated beyond the
filled part is not felt, and there not read. What lies between the filled part and the
end of its chunk is zero.
"""

from typing import Self

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.ops.attention import CHUNK
from jaxmoe.typing import Array, Float


class Positions:
    """A `LayerState` whose arrays are all [L, B, G, C, .], rows B of prompts or slots.

    Who extends it names the arrays, and has `empty`, `specs` and `held`.
    """

    @property
    def size(self) -> int:
        """C, the positions allocated in each row."""
        return jax.tree.leaves(self)[0].shape[3]

    def put(self, index: Array, prompts: Self, row: Array) -> Self:
        """See `LayerState`.

        `prompts` come in whole chunks, zero past their lengths: chunks beyond them
        stay as they were, and are never read.
        """
        assert prompts.size % CHUNK == 0

        def place(stack: Array, new: Array) -> Array:
            new = lax.dynamic_slice_in_dim(new, row, 1, axis=1).astype(stack.dtype)
            return lax.dynamic_update_slice(stack, new, (0, index, 0, 0, 0))

        return jax.tree.map(place, self, prompts)

    def fork(self, prefix: Self, prompt: Array, new: Array) -> Self:
        """See `LayerState`: zeros, so that no NaN of its last use stays."""
        rows = jnp.argsort(~new, stable=True)  # those that begin come first

        def clear_one(index: Array, state: Self) -> Self:
            def zero(stack: Array) -> Array:
                shape = (stack.shape[0], 1, *stack.shape[2:])
                empty = jnp.zeros(shape, stack.dtype)
                return lax.dynamic_update_slice_in_dim(stack, empty, rows[index], 1)

            return jax.tree.map(zero, state)

        return lax.fori_loop(0, new.sum(), clear_one, self)

    def _write(self, at: Array | int, position: Array, *new: Array) -> Self:
        """With one position a row in layer `at`: of each array what is new, there.

        position: [B]. new: [B, G, .], an array each. The caller has checked that it
        fits: past the end nothing is written.
        """
        row = jnp.arange(position.shape[0])

        def put(stack: Array, new: Array) -> Array:
            new = new.astype(stack.dtype)
            return stack.at[at, row, :, position].set(new, mode="drop")

        stacks, kind = jax.tree.flatten(self)
        return jax.tree.unflatten(kind, map(put, stacks, new))

    def rewound(self, before: Self) -> Self:
        """See `LayerState`: the next write is to the same place."""
        del before  # not read again, so that writes are in place
        return self

    def grow(self, size: int) -> Self:
        """See `LayerState`."""
        room = ((0, 0), (0, 0), (0, 0), (0, size - self.size), (0, 0))
        return jax.tree.map(lambda a: jnp.pad(a, room), self)


def in_chunks(heads: Float[Array, "N G A"], count: int) -> Float[Array, "B G C A"]:
    """Rows of `count` sequences as a state has them, with zeros to whole chunks.

    Whole chunks, so that nothing of a row's last prompt stays in sight.
    """
    apart = heads.reshape(count, -1, *heads.shape[1:]).swapaxes(1, 2)
    room = -apart.shape[2] % CHUNK
    return jnp.pad(apart, ((0, 0), (0, 0), (0, room), (0, 0)))
