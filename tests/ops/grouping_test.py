"""Cutting groups into blocks against a plain Python model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops.grouping import (
    block_members,
    cut_blocks,
    max_blocks,
    place_of_members,
    stable_order,
)


def _plain(groups, num_groups, size):
    """The blocks as (group, members) lists, made the slow way."""
    blocks = []
    for group in range(num_groups):
        members = [m for m, g in enumerate(groups) if g == group]
        for first in range(0, len(members), size):
            blocks.append((group, members[first : first + size]))
    return blocks


@partial(jax.jit, static_argnums=(1, 2))
def _all_blocks(groups, num_groups, size):
    blocks = cut_blocks(groups, num_groups, size)
    index = jnp.arange(max_blocks(groups.shape[0], num_groups, size))
    return blocks, jax.vmap(lambda i: block_members(blocks, i, size))(index)


def _cut(groups, num_groups, size):
    """Our blocks as the same lists."""
    groups = jnp.asarray(groups, jnp.int32)
    blocks, (members, filled) = _all_blocks(groups, num_groups, size)
    assert ((members >= 0) & (members < len(groups))).all()
    members, filled, group = map(np.asarray, (members, filled, blocks.group))
    return [
        (int(group[index]), members[index][filled[index]].tolist())
        for index in range(int(blocks.count))
    ]


SPECIAL = {
    "docstring": ([2, 0, 2, 2, -1], 3, 2),
    "one member": ([1], 3, 4),
    "one member of no group": ([-1], 3, 4),
    "all of no group": ([-1] * 7, 3, 2),
    "all the same": ([4] * 13, 5, 4),
    "all the same, a whole number of blocks": ([0] * 12, 5, 4),
    "only the last group": ([-1, 4, -1, 4], 5, 1),
    "one group": ([0, -1, 0], 1, 2),
    "each its own": (list(range(9)), 9, 4),
    "blocks of one": ([3, 1, 1, 3, 3, 0], 4, 1),
    "blocks larger than all": ([3, 1, 1, 3, 3, 0], 4, 64),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", SPECIAL.values(), ids=SPECIAL)
def test_blocks_equal_the_plain_model(case):
    """A member lost, doubled or put into another group's block is a wrong answer."""
    assert _cut(*case) == _plain(*case)


def test_docstring_example():
    """The three blocks that the module's docstring shows."""
    assert _cut([2, 0, 2, 2, -1], 3, 2) == [(0, [1]), (2, [0, 2]), (2, [3])]


@pytest.mark.thorough
@pytest.mark.parametrize("members", [1, 5, 64])
@pytest.mark.parametrize("num_groups", [1, 9, 40])
@pytest.mark.parametrize("size", [1, 8])
def test_blocks_of_random_groups(members, num_groups, size):
    """Every member of a group is in exactly one block of that group; the room holds."""
    rng = np.random.default_rng([members, num_groups, size])
    for trial in range(10):
        groups = rng.integers(-1, num_groups, members)
        if trial % 2:  # skewed: most in one group
            groups = np.where(rng.random(members) < 0.8, groups[0], groups)
        found = _cut(groups, num_groups, size)
        assert found == _plain(groups, num_groups, size)
        assert len(found) <= max_blocks(members, num_groups, size)


def test_max_blocks_is_enough_for_the_worst_split():
    """Too little room would drop rows exactly when routing is skewed."""

    def worst(members, groups, size):
        # One member in as many groups as can be, the rest in whole blocks of one.
        return members if members <= groups else groups + (members - groups) // size

    for members in range(1, 41):
        for groups in range(1, 14):
            for size in (1, 2, 3, 4, 8, 16):
                room = max_blocks(members, groups, size)
                assert worst(members, groups, size) <= room <= members


def test_max_blocks_is_enough_for_every_split_of_few():
    """The bound above by brute force: all ways to give 7 members to 3 groups."""
    for first in range(8):
        for second in range(8 - first):
            counts = (first, second, 7 - first - second)
            for size in (1, 2, 3, 4, 7, 8):
                needed = sum(-(-count // size) for count in counts)
                assert needed <= max_blocks(7, 3, size)


def test_members_keep_their_order_within_a_group():
    """The sort must be stable, or equal inputs could be summed in other orders."""
    groups = np.random.default_rng(0).integers(0, 3, 64)
    blocks, _ = _all_blocks(jnp.asarray(groups, jnp.int32), 3, 8)
    order = np.asarray(blocks.order)
    for group in range(3):
        members = order[groups[order] == group]
        assert (np.diff(members) > 0).all()


@pytest.mark.parametrize("num_groups", [9, 1 << 29], ids=["packed", "too many to pack"])
def test_members_of_a_group_keep_their_order(num_groups):
    """Rows would add up in another order than before, or lose their place."""
    groups = np.random.default_rng(0).integers(0, 9, 50, np.int32)
    order = stable_order(jnp.asarray(groups), num_groups)
    np.testing.assert_array_equal(order, np.argsort(groups, kind="stable"))


def test_places_lead_back_to_members():
    """A row would get what another's expert gave."""
    groups = jnp.array([3, -1, 0, 3, 2, 0, -1], jnp.int32)
    blocks = cut_blocks(groups, 4, 2)
    place = place_of_members(blocks)
    np.testing.assert_array_equal(blocks.order[place], np.arange(7))
