"""Attending: softmax over cached positions, in chunks of fixed size.

Every form walks the positions chunk by chunk with a running softmax (arXiv
1805.02867). A chunk that a query does not see changes nothing, to the bit, so how much
cache is allocated, or how far other samples have come, does not show in a sample's
numbers.

Queries and keys have A coordinates, values V of them, which may be more or fewer. In
every form `scale` multiplies products of queries and keys (A ** -0.5 where None), and
`sinks` [H] are scores of each query head that have no value (Xiao et al., arXiv
2309.17453; learned ones: 2508.10925): they take part in the softmax once, at its end.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.ops.grouping import Blocks, block_members
from jaxmoe.ops.matmul import FEW_ROWS, precision_for
from jaxmoe.ops.stack import OfLayer, piece
from jaxmoe.typing import Array, Bool, Float, Int

CHUNK = 128
"""Cached positions that attention reads at a time, but for a slot's own."""

CAUSAL_CHUNK = 256
"""Positions of a long sequence that attend to each other at a time: products of larger
matrices are faster, and for a short sequence more of them would be masked."""

OWN_CHUNKS = ((128, 16), (1 << 30, 64))
"""(up to, positions at a time) of a slot's own positions.

Every slot reads as many chunks as the longest needs, a whole one for its first
position: with 64 slots 128 positions cost ten times what 16 do. From some hundreds on
small chunks cost up to twice as much. Where a chunk begins follows from the position
alone, so that no slot feels how far the others are."""

_LOWEST = -1e30


class QKV(NamedTuple):
    """Rotated queries [N, H, A] and keys [N, G, A], and values [N, G, V]."""

    q: Array
    k: Array
    v: Array


class OnlineSoftmax(NamedTuple):
    """A softmax under way: largest score, sum of weights, weighted sum of values.

    top, total: float32 [..., R]; out: float32 [..., R, V].
    """

    top: Array
    total: Array
    out: Array

    @classmethod
    def start(cls, shape: tuple[int, ...], width: int) -> "OnlineSoftmax":
        """Nothing seen yet, for queries of leading `shape` and values of `width`."""
        return cls(
            jnp.full(shape, _LOWEST, jnp.float32),
            jnp.zeros(shape, jnp.float32),
            jnp.zeros((*shape, width), jnp.float32),
        )

    def add(
        self,
        q: Float[Array, "*X R A"],
        k: Float[Array, "*X C A"],
        v: Float[Array, "*X C V"],
        seen: Bool[Array, "*Y C"],
        *,
        scale: float | None,
        keys_left: bool = True,
    ) -> "OnlineSoftmax":
        """Take in one chunk of keys; `seen` is broadcast."""
        batch, last = tuple(range(q.ndim - 2)), q.ndim - 1
        scores = compare(q, k, keys_left=keys_left) * scale_of(q, scale)
        scores = jnp.where(seen, scores, _LOWEST)
        top = jnp.maximum(self.top, scores.max(axis=-1))
        weights = jnp.where(seen, jnp.exp(scores - top[..., None]), 0.0)
        keep = jnp.exp(self.top - top)
        added = lax.dot_general(
            weights.astype(v.dtype),
            v,
            (((last,), (last - 1,)), (batch, batch)),
            precision=precision_for(v.dtype),
            preferred_element_type=jnp.float32,
        )
        return OnlineSoftmax(
            top,
            self.total * keep + weights.sum(axis=-1),
            self.out * keep[..., None] + added,
        )

    def finish(self, sinks: Float[Array, "*X R"] | None = None) -> Array:
        """The weighted mean of values, [..., R, V]; 0 where nothing was seen.

        sinks: scores without a value, which only take weight from the others.
        """
        if sinks is not None:
            return self._with(sinks).finish()
        return self.out / jnp.where(self.total > 0, self.total, 1.0)[..., None]

    def _with(self, sinks: Array) -> "OnlineSoftmax":
        sinks = jnp.broadcast_to(sinks, self.top.shape)
        top = jnp.maximum(self.top, sinks)
        keep = jnp.exp(self.top - top)
        total = self.total * keep + jnp.exp(sinks - top)
        return OnlineSoftmax(top, total, self.out * keep[..., None])


def scale_of(q: Float[Array, "... A"], scale: float | None) -> float:
    """What multiplies products of queries and keys: `scale`, or A ** -0.5."""
    return q.shape[-1] ** -0.5 if scale is None else scale


def compare(
    q: Float[Array, "*X R A"], k: Float[Array, "*X C A"], *, keys_left: bool = True
) -> Float[Array, "*X R C"]:
    """Products of every query with every key, float32.

    keys_left: where queries are few, have the keys on the left, for CPUs.
    """
    batch, last = tuple(range(q.ndim - 2)), q.ndim - 1
    multiply = partial(
        lax.dot_general,
        dimension_numbers=(((last,), (last,)), (batch, batch)),
        precision=precision_for(q.dtype),
        preferred_element_type=jnp.float32,
    )
    if q.shape[-2] < FEW_ROWS and keys_left:
        # As weights are in `jaxmoe.ops.matmul.multiply`.
        return lax.optimization_barrier(multiply(k, q)).swapaxes(-1, -2)
    return multiply(q, k)


def group_queries(q: Float[Array, "N H A"], groups: int) -> Float[Array, "N G R A"]:
    """Query heads beside the key-value head that they share."""
    return q.reshape(q.shape[0], groups, -1, q.shape[-1])


def visible(
    query: Int[Array, "*Q"], position: Int[Array, "C"], window: int | None
) -> Bool[Array, "*Q C"]:
    """Whether a query at an absolute position sees a key at one."""
    key = position.reshape((1,) * query.ndim + position.shape)
    seen = key <= query[..., None]
    return seen if window is None else seen & (key > query[..., None] - window)


def first_visible(query: Array | int, window: int | None) -> Array | int:
    """The first position that a query at `query`, or one after it, may see."""
    return 0 if window is None else jnp.maximum(query - window + 1, 0)


def attend_causal(
    qkv: QKV,
    *,
    window: int | None,
    scale: float | None = None,
    sinks: Float[Array, "H"] | None = None,
) -> Float[Array, "T H V"]:
    """Attention within one sequence of T positions, each seeing itself and before."""
    tokens, heads, width = qkv.q.shape
    groups, wide = qkv.v.shape[1:]
    q = group_queries(qkv.q, groups)
    k, v = qkv.k.swapaxes(0, 1), qkv.v.swapaxes(0, 1)
    long = tokens >= 2 * CAUSAL_CHUNK and tokens % CAUSAL_CHUNK == 0
    size = CAUSAL_CHUNK if long else min(tokens, CHUNK)
    assert tokens % size == 0, (tokens, size)

    def one_block(first):
        queries = lax.dynamic_slice_in_dim(q, first, size)
        queries = queries.transpose(1, 2, 0, 3).reshape(groups, -1, width)
        row = jnp.tile(first + jnp.arange(size), heads // groups)

        def one_chunk(chunk, running):
            keys = lax.dynamic_slice_in_dim(k, chunk * size, size, axis=1)
            values = lax.dynamic_slice_in_dim(v, chunk * size, size, axis=1)
            seen = visible(row, chunk * size + jnp.arange(size), window)
            return running.add(queries, keys, values, seen[None], scale=scale)

        running = OnlineSoftmax.start((groups, row.shape[0]), wide)
        begin = first_visible(first, window) // size
        running = lax.fori_loop(begin, first // size + 1, one_chunk, running)
        out = running.finish(sinks_of_rows(sinks, groups, size))
        out = out.reshape(groups, heads // groups, size, wide)
        return out.transpose(2, 0, 1, 3).reshape(size, heads, wide)

    firsts = jnp.arange(0, tokens, size)
    out = one_block(0) if tokens == size else lax.map(one_block, firsts)
    return out.reshape(tokens, heads, wide).astype(qkv.q.dtype)


def sinks_of_rows(
    sinks: Float[Array, "H"] | None, groups: int, size: int
) -> Float[Array, "G R"] | None:
    """Those of a group's rows: `size` queries of a head, then the next head's."""
    if sinks is None:
        return None
    return jnp.repeat(sinks.reshape(groups, -1), size, axis=1)


def attend_prefix(
    q: Float[Array, "S H A"],
    k: Float[Array, "P G C A"] | OfLayer,
    v: Float[Array, "P G C V"] | OfLayer,
    *,
    length: Int[Array, "P"],
    positions: Int[Array, "S"],
    blocks: Blocks | None,
    block: int,
    window: int | None,
    scale: float | None = None,
) -> OnlineSoftmax:
    """Each slot's softmax over its prompt's prefix, [S, G, R].

    A block of slots shares a prompt, and so each read of its cache. `blocks` None:
    all slots are one block, of the only prompt.
    """
    slots, heads, width = q.shape
    groups, wide = k.shape[1], v.shape[3]
    grouped = group_queries(q, groups)

    def one_prompt(prompt: Array, members: Array, queries: Array) -> OnlineSoftmax:
        """Queries [B, G, R, A] of one prompt, as rows [G, B * R] of one product."""
        rows = queries.swapaxes(0, 1).reshape(groups, -1, width)
        row_position = jnp.repeat(positions[members], heads // groups)

        def one_chunk(chunk, running):
            at = (prompt, 0, chunk * CHUNK, 0)
            keys = piece(k, at, (1, groups, CHUNK, width))[0]
            values = piece(v, at, (1, groups, CHUNK, wide))[0]
            place = chunk * CHUNK + jnp.arange(CHUNK)
            seen = visible(row_position, place, window)
            seen = seen & (place < length[prompt])[None, :]
            return running.add(rows, keys, values, seen[None], scale=scale)

        running = OnlineSoftmax.start((groups, rows.shape[1]), wide)
        chunks = (length[prompt] + CHUNK - 1) // CHUNK
        begin = first_visible(positions[members].min(), window) // CHUNK
        running = lax.fori_loop(begin, chunks, one_chunk, running)
        shape = (groups, queries.shape[0], heads // groups)
        return jax.tree.map(
            lambda a: a.reshape(*shape, *a.shape[2:]).swapaxes(0, 1), running
        )

    if blocks is None:
        return one_prompt(jnp.int32(0), jnp.arange(slots), grouped)

    def one_block(index, running):
        members, filled = block_members(blocks, index, block)
        part = one_prompt(blocks.group[index], members, grouped[members])
        target = jnp.where(filled, members, slots)
        return jax.tree.map(
            lambda a, b: a.at[target].set(b, mode="drop"), running, part
        )

    running = OnlineSoftmax.start((slots, groups, heads // groups), wide)
    return lax.fori_loop(0, blocks.count, one_block, running)


def attend_suffix(
    running: OnlineSoftmax,
    q: Float[Array, "S H A"],
    k: Float[Array, "S G C A"] | OfLayer,
    v: Float[Array, "S G C V"] | OfLayer,
    *,
    start: Int[Array, "S"],
    positions: Int[Array, "S"],
    longest: Int[Array, ""],
    window: int | None,
    scale: float | None = None,
    sinks: Float[Array, "H"] | None = None,
) -> Float[Array, "S H V"]:
    """The same softmax carried on over each slot's own positions, and finished.

    start: absolute position of each slot's first own position.
    longest: the most own positions that any slot has; chunks past it are not read.
    """
    groups = k.shape[1]
    queries = group_queries(q, groups)
    own = positions - start

    def one_chunk(first: Array, size: int, running: OnlineSoftmax) -> OnlineSoftmax:
        at = (0, 0, first, 0)
        keys, values = (piece(a, at, (*a.shape[:2], size, a.shape[3])) for a in (k, v))
        seen = visible(own, first + jnp.arange(size), window)[:, None, None, :]
        return running.add(queries, keys, values, seen, scale=scale)

    begin = 0
    for end, size in OWN_CHUNKS:
        end = min(end, k.shape[2])
        if begin == end:
            break
        step = lambda i, r, begin=begin, size=size: one_chunk(begin + i * size, size, r)  # noqa: E731
        count = (jnp.clip(longest, begin, end) - begin + size - 1) // size
        passed = 0
        if window is not None:
            passed = jnp.maximum(first_visible(own.min(), window) - begin, 0) // size
        running = lax.fori_loop(passed, count, step, running)
        begin = end
    out = running.finish(sinks_of_rows(sinks, groups, 1))
    return out.reshape(*q.shape[:2], -1).astype(q.dtype)
