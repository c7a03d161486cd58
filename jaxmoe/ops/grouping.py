"""Cut members that belong to groups into blocks, each block of one group.

Expert dispatch and shared-prefix attention have the same shape: many small members
(rows, slots), each wanting one of a few large things (an expert, a prompt's cache).
Sorted by group and cut into blocks of B, each block reads its large thing once.

    groups [2, 0, 2, 2, -1], B = 2  ->  blocks (0: 1 .) (2: 0 2) (2: 3 .)
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmoe.typing import Array, Int


class Blocks(NamedTuple):
    """Where each block starts; only the first `count` blocks exist.

    order: members sorted by group, those of no group last.
    group: the group of each block.
    start: index into `order` of each block's first member.
    stop: index into `order` past the last member of the block's group.
    count: number of blocks.
    """

    order: Int[Array, "M"]
    group: Int[Array, "X"]
    start: Int[Array, "X"]
    stop: Int[Array, "X"]
    count: Int[Array, ""]


def max_blocks(members: int, groups: int, size: int) -> int:
    """The most blocks that `members` in `groups` can need."""
    return min(members, groups + members // size)


def cut_blocks(groups: Int[Array, "M"], num_groups: int, size: int) -> Blocks:
    """Blocks of at most `size` members with equal group; group -1 is in none."""
    member_groups = jnp.where(groups < 0, num_groups, groups)
    order = stable_order(member_groups, num_groups + 1)
    # Counted, summed and searched by comparing with all groups: XLA makes loops of
    # scatters and binary searches, and many operations of running sums, where each of
    # these is one.
    every = jnp.arange(num_groups, dtype=jnp.int32)
    counts = (groups[:, None] == every[None, :]).sum(axis=0, dtype=jnp.int32)
    upto = every[:, None] <= every[None, :]
    ends = jnp.where(upto, counts[:, None], 0).sum(axis=0)
    blocks_of_group = (counts + size - 1) // size
    block_ends = jnp.where(upto, blocks_of_group[:, None], 0).sum(axis=0)
    block = jnp.arange(max_blocks(groups.shape[0], num_groups, size), dtype=jnp.int32)
    ended = block_ends[None, :] <= block[:, None]
    group = jnp.minimum(ended.sum(axis=1, dtype=jnp.int32), num_groups - 1)
    within = block - (block_ends - blocks_of_group)[group]
    start = (ends - counts)[group] + within * size
    return Blocks(order, group, start, ends[group], block_ends[-1])


def stable_order(groups: Int[Array, "M"], num_groups: int) -> Int[Array, "M"]:
    """Members by group, those of one group in their own order."""
    members = groups.shape[0]
    if num_groups * members > jnp.iinfo(jnp.int32).max:
        return jnp.argsort(groups, stable=True).astype(jnp.int32)
    # Group and member as one number: XLA sorts one array in a third of the time.
    both = groups.astype(jnp.int32) * members + jnp.arange(members, dtype=jnp.int32)
    return lax.sort(both, is_stable=False) % members


def place_of_members(blocks: Blocks) -> Int[Array, "M"]:
    """Where each member stands in `blocks.order`."""
    place = jnp.arange(blocks.order.shape[0], dtype=jnp.int32)
    return jnp.zeros_like(place).at[blocks.order].set(place, unique_indices=True)


def block_members(
    blocks: Blocks, index: Int[Array, ""], size: int
) -> tuple[Int[Array, "B"], Array]:
    """Members of block `index`, and which of the B places are filled."""
    place = blocks.start[index] + jnp.arange(size, dtype=jnp.int32)
    filled = place < blocks.stop[index]
    last = blocks.order.shape[0] - 1
    return blocks.order[jnp.minimum(place, last)], filled
