"""Keys and values hold what was put in them, and nothing else."""

import chex
import jax.numpy as jnp
import numpy as np

from jaxmoe.nn.key_values import KeyValues
from tests.tiny import EXECUTION, tiny_config

MIXER = tiny_config().layers[0].mixer


def empty(layers: int = 2, rows: int = 3, size: int = 128) -> KeyValues:
    """Nothing, of two layers and three rows."""
    return KeyValues.empty(
        MIXER,
        layers=layers,
        rows=rows,
        size=size,
        dtype=jnp.float32,
        layout=EXECUTION.layout,
    )


def test_write_puts_one_position_in_each_row():
    """A step's keys would land in another slot, layer or position."""
    new = jnp.arange(3.0)[:, None, None] + jnp.ones((3, MIXER.num_kv_heads, 16))
    written = empty().write(1, new, -new, jnp.array([0, 127, 5]))
    expected = np.zeros((3, MIXER.num_kv_heads, 128, 16), np.float32)
    for row, position in enumerate([0, 127, 5]):
        expected[row, :, position] = row + 1
    chex.assert_trees_all_equal(np.asarray(written.k[1]), expected)
    chex.assert_trees_all_equal(np.asarray(written.v[1]), -expected)
    assert not written.k[0].any()


def test_write_past_the_end_is_dropped():
    """A slot at rest would overwrite the last position."""
    new = jnp.ones((3, MIXER.num_kv_heads, 16))
    written = empty().write(0, new, new, jnp.full(3, 128))
    chex.assert_trees_all_equal(written, empty())


def test_put_changes_one_row():
    """Loading a prompt would overwrite another that is in use."""
    two = empty(rows=2)
    rows = jnp.array([5.0, 2.0])[None, :, None, None, None]
    two = KeyValues(two.k + rows, two.v - rows)
    whole = empty(size=256).put(jnp.int32(1), two, jnp.int32(1))
    assert (whole.k[:, 1, :, :128] == 2).all() and (whole.v[:, 1, :, :128] == -2).all()
    assert not whole.k[:, 1, :, 128:].any()
    assert not whole.k[:, jnp.array([0, 2])].any()


def test_fork_and_grow():
    """A new sample would inherit its predecessor's positions, or one lose its own."""
    new = jnp.ones((3, MIXER.num_kv_heads, 16))
    full = empty().write(0, new, new, jnp.array([1, 2, 3]))
    prompt, begins = jnp.zeros(3, jnp.int32), jnp.array([True, False, True])
    forked = full.fork(empty(rows=1), prompt, begins)
    assert not forked.k[:, jnp.array([0, 2])].any()
    chex.assert_trees_all_equal(forked.k[:, 1], full.k[:, 1])
    grown = full.grow(256)
    assert grown.size == 256
    chex.assert_trees_all_equal(grown.k[:, :, :, :128], full.k)
    assert not grown.k[:, :, :, 128:].any()
