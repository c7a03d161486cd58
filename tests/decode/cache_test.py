"""Caches hold what was put in them, and nothing else."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.decode.cache import PrefixCache, SuffixCache, bucket, grow
from jaxmoe.ops.attention.chunked import CHUNK
from tests.tiny import VOCAB, tiny_config

CONFIG = tiny_config()


def prefix(prompts: int, size: int, value: float = 0.0) -> PrefixCache:
    """A prefix cache filled with `value`."""
    empty = PrefixCache.empty(
        CONFIG, prompts=prompts, size=size, width=4, dtype=jnp.float32
    )
    return PrefixCache(
        k=tuple(a + value for a in empty.k),
        v=tuple(a - value for a in empty.v),
        length=empty.length + 5,
        logits=empty.logits + value,
        routes=empty.routes,
    )


@pytest.mark.parametrize(("length", "size"), [(1, 128), (128, 128), (129, 256)])
def test_bucket(length, size):
    """Too little would be allocated, or a size that attention cannot walk."""
    assert bucket(length) == size
    assert bucket(length) % CHUNK == 0


def test_put_changes_one_entry():
    """Loading a prompt would overwrite another that is in use."""
    whole = prefix(3, 256).put(jnp.int32(1), prefix(1, 128, 2.0))
    for layer in range(CONFIG.num_layers):
        assert (whole.k[layer][1, :, :128] == 2).all()
        assert (whole.v[layer][1, :, :128] == -2).all()
        assert (whole.k[layer][1, :, 128:] == 0).all()
        assert (whole.k[layer][jnp.array([0, 2])] == 0).all()
    chex.assert_trees_all_equal(whole.logits[:, 0], jnp.array([0.0, 2.0, 0.0]))
    chex.assert_shape(whole.logits, (3, VOCAB))


def suffix(slots: int = 3, size: int = 128) -> SuffixCache:
    """An empty suffix cache."""
    return SuffixCache.empty(CONFIG, slots=slots, size=size, dtype=jnp.float32)


def test_write_puts_one_position_in_each_slot():
    """A step's keys would land in another slot, layer or position."""
    mixer = CONFIG.layers[0].mixer
    new = jnp.arange(3.0)[:, None, None] + jnp.ones((3, mixer.num_kv_heads, 16))
    written = suffix().write(1, new, -new, jnp.array([0, 127, 5]))
    expected = np.zeros((3, mixer.num_kv_heads, 128, 16), np.float32)
    for slot, position in enumerate([0, 127, 5]):
        expected[slot, :, position] = slot + 1
    chex.assert_trees_all_equal(np.asarray(written.k[1]), expected)
    chex.assert_trees_all_equal(np.asarray(written.v[1]), -expected)
    assert not written.k[0].any()


def test_write_past_the_end_is_dropped():
    """A slot at rest would overwrite the last position."""
    new = jnp.ones((3, CONFIG.layers[0].mixer.num_kv_heads, 16))
    written = suffix().write(0, new, new, jnp.full(3, 128))
    chex.assert_trees_all_equal(written, suffix())


def test_clear_and_grow():
    """A seated sample would inherit its predecessor's cache, or lose its own."""
    new = jnp.ones((3, CONFIG.layers[0].mixer.num_kv_heads, 16))
    full = suffix().write(0, new, new, jnp.array([1, 2, 3]))
    cleared = full.clear(jnp.array([True, False, True]))
    assert not cleared.k[0][jnp.array([0, 2])].any()
    chex.assert_trees_all_equal(cleared.k[0][1], full.k[0][1])
    grown = grow(full.k[0], 256)
    assert grown.shape[2] == 256
    chex.assert_trees_all_equal(grown[:, :, :128], full.k[0])
    assert not grown[:, :, 128:].any()
