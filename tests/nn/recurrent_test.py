"""Recurrent states hold what was put in them, row by row."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import DeltaConfig
from jaxmoe.nn.base import Held, LayerState
from jaxmoe.nn.recurrent import Recurrent
from tests.tiny import EXECUTION

MIXER = DeltaConfig(2, 6, 8, 5)
PARTS = ("memory", "inputs")


def filled(rows: int, seed: int = 0) -> Recurrent:
    """Two layers of random numbers."""
    state = Recurrent.empty(
        MIXER,
        layers=2,
        rows=rows,
        size=128,
        dtype=jnp.float32,
        layout=EXECUTION.layout,
    )
    rng = np.random.default_rng(seed)
    draw = lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype)  # noqa: E731
    return jax.tree.map(draw, state)


def test_it_is_a_layer_state():
    """Memory would be planned, spread or grown for another state."""
    state = filled(3)
    assert isinstance(state, LayerState)
    assert state.size is None and state.grow(256) is state
    values = sum(a[0, 0].size for a in (state.memory, state.inputs))
    held = Recurrent.held(MIXER, dtype="float32", layout=EXECUTION.layout)
    assert held == Held(position=0, fixed=4 * values)


@pytest.mark.parametrize("part", PARTS)
def test_samples_begin_with_their_prompts_state(part):
    """A sample would begin after another prompt, or one under way lose its own."""
    own, prefix = filled(4), filled(3, seed=1)
    prompt, new = jnp.array([2, 0, 1, 2]), jnp.array([True, False, True, False])
    found, own, prefix = (
        getattr(s, part) for s in (own.fork(prefix, prompt, new), own, prefix)
    )
    for row, source in enumerate((prefix[:, 2], own[:, 1], prefix[:, 1], own[:, 3])):
        chex.assert_trees_all_equal(found[:, row], source)


@pytest.mark.parametrize("part", PARTS)
def test_put_changes_one_row(part):
    """Loading a prompt would overwrite another that is in use."""
    own, other = filled(3), filled(2, seed=1)
    found, own, other = (
        getattr(s, part)
        for s in (own.put(jnp.int32(1), other, jnp.int32(0)), own, other)
    )
    chex.assert_trees_all_equal(found[:, 1], other[:, 0])
    for row in (0, 2):
        chex.assert_trees_all_equal(found[:, row], own[:, row])


@pytest.mark.parametrize("part", PARTS)
def test_slots_at_rest_keep_theirs(part):
    """A step of the others, or one of NaN, would change a sample that has ended."""
    own, active = filled(3), jnp.array([True, False, True])
    other = jax.tree.map(lambda a: a[0].at[1].set(jnp.nan), filled(3, seed=1))
    written = own.write(1, other.memory, other.inputs, active)
    found, own, other = (getattr(s, part) for s in (written, own, other))
    chex.assert_trees_all_equal(found[0], own[0])
    chex.assert_trees_all_equal(found[1, 1], own[1, 1])
    for row in (0, 2):
        chex.assert_trees_all_equal(found[1, row], other[row])
