"""Attending in whole arrays, for machines that want few, large steps.

The functions of `jaxmoe.ops.attention.chunked` without loops whose length depends on
data: what is allocated is read whole, and masked. An accelerator reads cache that it
does not need sooner than it is told to stop.

While decoding, the product of weights and values is cut into chunks of `CHUNK`
positions, as one more batch dimension, and the parts are added up in pairs:

    ((0 + 1) + (2 + 3)) + ((4 + .) + (. + .))       five chunks seen, eight allocated

Chunks without weight add exact zeros at the end of that tree, so how much is allocated
changes no order of sums. They are left out by selection, so that even a NaN among their
values is not felt; within the last chunk in use the caches hold zeros past their end.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.ops.attention.chunked import (
    _LOWEST,
    CHUNK,
    QKV,
    OnlineSoftmax,
    group_queries,
    scale_of,
    sinks_of_rows,
    visible,
)
from jaxmoe.ops.grouping import Blocks, block_members
from jaxmoe.ops.matmul import precision_for
from jaxmoe.ops.stack import OfLayer, whole
from jaxmoe.typing import Array, Bool, Float, Int

SCORES_AT_ONCE = 1 << 27
"""Scores of one sequence held at a time, of all heads: 512 MiB in float32."""

COPY_AT_ONCE = 1 << 30
"""Bytes of prefix cache copied at a time where several prompts are in flight."""


def attend_causal(
    qkv: QKV,
    *,
    window: int | None,
    scale: float | None = None,
    sinks: Float[Array, "H"] | None = None,
) -> Float[Array, "T H V"]:
    """Attention within one sequence of T positions, each seeing itself and before.

    Short sequences have all their scores at once, long ones those of equal blocks of
    queries, each against all keys.
    """
    tokens, heads, width = qkv.q.shape
    groups, wide = qkv.v.shape[1:]
    k, v = qkv.k.swapaxes(0, 1), qkv.v.swapaxes(0, 1)
    size = _queries_at_once(tokens, heads)
    blocks = group_queries(qkv.q, groups).reshape(
        -1, size, groups, heads // groups, width
    )

    def one_block(block: tuple[Array, Array]) -> Array:
        queries, positions = block
        rows = queries.transpose(1, 2, 0, 3).reshape(groups, -1, width)
        row_position = jnp.tile(positions, heads // groups)
        seen = visible(row_position, jnp.arange(tokens), window)
        running = OnlineSoftmax.start(rows.shape[:2], wide)
        running = running.add(rows, k, v, seen[None], scale=scale, keys_left=False)
        out = running.finish(sinks_of_rows(sinks, groups, size)).astype(qkv.q.dtype)
        out = out.reshape(groups, heads // groups, size, wide)
        return out.transpose(2, 0, 1, 3).reshape(size, heads, wide)

    positions = jnp.arange(tokens).reshape(-1, size)
    if size == tokens:
        return one_block((blocks[0], positions[0]))
    return lax.map(one_block, (blocks, positions)).reshape(tokens, heads, wide)


def _queries_at_once(tokens: int, heads: int) -> int:
    """The largest divisor of `tokens` whose scores fit `SCORES_AT_ONCE`."""
    most = max(1, min(tokens, SCORES_AT_ONCE // (tokens * heads)))
    return next(size for size in range(most, 0, -1) if tokens % size == 0)


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

    One prompt (`blocks` None) is one product of all slots' queries with its cache,
    read in place. With several, each of the X blocks is given a copy of its prompt's
    cache, written once and read once. All slots against all prompts would need no
    copies, but P times the arithmetic, and P * S rows of scores and weights to move:
    from about 8 prompts on with 64 slots that is more than the copies. Every slot is
    in the same batched product wherever its block lies, so that its neighbours do not
    choose the kernel that computes it.
    """
    k, v = whole(k), whole(v)
    queries = group_queries(q, k.shape[1])
    if blocks is None:
        one = _attend_shared(
            queries[None], k[:1], v[:1], length[:1], positions[None], window, scale
        )
        return jax.tree.map(lambda a: a[0], one)

    def some_blocks(index: Int[Array, "X"]) -> OnlineSoftmax:
        members, _ = jax.vmap(lambda i: block_members(blocks, i, block))(index)
        prompt = blocks.group[index]
        return _attend_shared(
            queries[members],
            k[prompt],
            v[prompt],
            length[prompt],
            positions[members],
            window,
            scale,
        )

    count = blocks.group.shape[0]
    copied = (k[0].size + v[0].size) * k.dtype.itemsize
    fitting = max(1, COPY_AT_ONCE // copied)
    index = jnp.arange(count)
    if count <= fitting:
        return _to_slots(some_blocks(index), blocks, block)
    # Equal batches, the last one filled up with its last block over again.
    batches = -(-count // fitting)
    index = jnp.minimum(jnp.arange(batches * fitting), count - 1)
    parts = lax.map(some_blocks, index.reshape(batches, fitting))
    flat = lambda a: a.reshape(-1, *a.shape[2:])[:count]  # noqa: E731
    return _to_slots(jax.tree.map(flat, parts), blocks, block)


def _attend_shared(
    queries: Float[Array, "X B G R A"],
    k: Float[Array, "X G C A"],
    v: Float[Array, "X G C V"],
    length: Int[Array, "X"],
    positions: Int[Array, "X B"],
    window: int | None,
    scale: float | None,
) -> OnlineSoftmax:
    """Queries at `positions` over `length` entries of a shared cache, [X, B, G, R]."""
    count, size, groups, repeats, width = queries.shape
    rows = queries.swapaxes(1, 2).reshape(count, groups, -1, width)
    place = jnp.arange(k.shape[2])
    seen = visible(jnp.repeat(positions, repeats, axis=1), place, window)
    seen &= (place[None] < length[:, None])[:, None]
    running = OnlineSoftmax.start(rows.shape[:-1], v.shape[-1])
    running = _add(running, rows, k, v, seen[:, None], scale)
    shape = (count, groups, size, repeats)
    return jax.tree.map(
        lambda a: a.reshape(*shape, *a.shape[3:]).swapaxes(1, 2), running
    )


def _to_slots(parts: OnlineSoftmax, blocks: Blocks, block: int) -> OnlineSoftmax:
    """What blocks computed, [X, B, ...], for each slot [S, ...]; no block: nothing."""
    count = blocks.group.shape[0]
    slots = blocks.order.shape[0]
    members, filled = jax.vmap(lambda i: block_members(blocks, i, block))(
        jnp.arange(count)
    )
    target = jnp.where(filled, members, slots).reshape(-1)
    nowhere = jnp.full(slots, count * block)
    place = nowhere.at[target].set(jnp.arange(count * block), mode="drop")

    def take(part: Array, missing: float) -> Array:
        flat = part.reshape(-1, *part.shape[2:])
        return flat.at[place].get(mode="fill", fill_value=missing)

    return OnlineSoftmax(
        take(parts.top, _LOWEST), take(parts.total, 0), take(parts.out, 0)
    )


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
    longest: not looked at.
    """
    k, v = whole(k), whole(v)
    queries = group_queries(q, k.shape[1])
    seen = visible(positions - start, jnp.arange(k.shape[2]), window)
    running = _add(running, queries, k, v, seen[:, None, None], scale)
    out = running.finish(sinks_of_rows(sinks, k.shape[1], 1))
    return out.reshape(*q.shape[:2], -1).astype(q.dtype)


def _add(
    running: OnlineSoftmax,
    q: Float[Array, "*X R A"],
    k: Float[Array, "*X C A"],
    v: Float[Array, "*X C V"],
    seen: Bool[Array, "*Y C"],
    scale: float | None,
) -> OnlineSoftmax:
    """`running.add` of whole chunks at once; `seen` is broadcast to [*X, R, C]."""
    *batch, rows, _ = q.shape
    chunks = k.shape[-2] // CHUNK
    scores = _multiply(q, k, contract=(-1, -1)) * scale_of(q, scale)
    scores = jnp.where(seen, scores, _LOWEST)
    top = jnp.maximum(running.top, scores.max(axis=-1))
    weights = jnp.where(seen, jnp.exp(scores - top[..., None]), 0.0)
    weights = weights.reshape(*batch, rows, chunks, CHUNK).swapaxes(-2, -3)
    totals = weights.sum(axis=-1)  # [*X, chunks, R]
    values = v.reshape(*batch, chunks, CHUNK, v.shape[-1])
    parts = _multiply(weights.astype(v.dtype), values, contract=(-1, -2))
    parts = jnp.where((totals != 0)[..., None], parts, 0.0)
    keep = jnp.exp(running.top - top)
    return OnlineSoftmax(
        top,
        running.total * keep + _sum_pairs(totals, len(batch)),
        running.out * keep[..., None] + _sum_pairs(parts, len(batch)),
    )


def _multiply(a: Array, b: Array, *, contract: tuple[int, int]) -> Array:
    """A product over one of the last two dimensions, batched over all before them."""
    batch = tuple(range(a.ndim - 2))
    over = ((contract[0] % a.ndim,), (contract[1] % b.ndim,))
    return lax.dot_general(
        a,
        b,
        (over, (batch, batch)),
        precision=precision_for(a.dtype),
        preferred_element_type=jnp.float32,
    )


def _sum_pairs(a: Array, axis: int) -> Array:
    """The sum over one axis, in an order that zeros appended to it do not change."""
    while a.shape[axis] > 1:
        if a.shape[axis] % 2:
            a = jnp.pad(a, [(0, int(i == axis)) for i in range(a.ndim)])
        even = lax.slice_in_dim(a, 0, None, 2, axis)
        a = even + lax.slice_in_dim(a, 1, None, 2, axis)
    return a.squeeze(axis)
