"""Prompts in flight: each in its entry."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxmoe.decode.cache import PrefixCache, bucket, room
from jaxmoe.nn.decoder import empty_states
from jaxmoe.ops.attention import CHUNK
from tests.tiny import EXECUTION, VOCAB, tiny_config

CONFIG = tiny_config()


def prefix(prompts: int, size: int, value: float = 0.0) -> PrefixCache:
    """A prefix cache filled with `value`."""
    cache = PrefixCache.empty(
        CONFIG, EXECUTION, prompts=prompts, size=size, width=4, dtype=jnp.float32
    )
    return PrefixCache(
        states=jax.tree.map(lambda a: a + value, cache.states),
        length=cache.length + 5,
        logits=cache.logits + value,
        routes=cache.routes,
        route_logprobs=cache.route_logprobs,
    )


@pytest.mark.parametrize(("length", "size"), [(1, 128), (128, 128), (129, 256)])
def test_bucket(length, size):
    """Too little would be allocated, or a size that attention cannot walk."""
    assert bucket(length) == size
    assert bucket(length) % CHUNK == 0


def test_put_changes_one_entry():
    """Loading a prompt would overwrite another that is in use."""
    prompts = prefix(2, 128, 2.0)
    prompts = replace(prompts, length=jnp.array([5, 0]))
    whole = prefix(3, 256).put(jnp.array([1, 2]), prompts)  # the second is no prompt
    for state in whole.states:
        assert (state.k[:, 1, :, :128] == 2).all()
        assert not state.k[:, jnp.array([0, 2])].any()
    chex.assert_trees_all_equal(whole.logits[:, 0], jnp.array([0.0, 2.0, 0.0]))
    chex.assert_shape(whole.logits, (3, VOCAB))


def test_room_is_what_the_least_state_holds():
    """An answer would be written past the end of one layer."""
    states = empty_states(CONFIG, EXECUTION, rows=2, size=128, dtype=jnp.float32)
    assert len(states) == CONFIG.num_layers
    assert room((states[0].grow(256), *states[1:])) == 128
