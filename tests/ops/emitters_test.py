"""Products as calls, which newer versions of XLA make a vectorised loop of.

What they compute is tested here with any version, by leaving out the mark that has each
call compiled by itself; tests/ops/lanes_test.py runs what the version at hand has.
"""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops import emitters, lanes
from jaxmoe.ops.bf16_bits import hold_for
from jaxmoe.ops.int8 import Int8, quantise_array
from jaxmoe.ops.stack import OfLayer

MARK = 'xla_cpu_small_call = "true"'


@pytest.fixture
def several_calls(monkeypatch):
    """As with a version of XLA without the older emitter for whole programs."""
    monkeypatch.setattr(emitters, "by_calls", lambda: True)
    monkeypatch.setattr(emitters, "calls", lambda values: 10)


def _normal(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("width", [96, 100, 32 * lanes.MOST_TERMS + 40])
@pytest.mark.parametrize("outputs", [3, 40, 41])
def test_parts_are_the_whole_product(several_calls, monkeypatch, count, width, outputs):
    """A part's border, a row's other half, or the rest of an axis."""
    monkeypatch.setattr(emitters, "set_xla_metadata", lambda **_: nullcontext())
    matrices, x = _normal(2, 3, outputs, width), _normal(count, width)
    layers = OfLayer(hold_for("cpu", jnp.asarray(matrices, jnp.bfloat16)), jnp.int32(1))
    found = jax.jit(lanes.multiply_rows)(jnp.asarray(x), layers, jnp.int32(2))
    held = np.asarray(jnp.asarray(matrices, jnp.bfloat16), np.float64)
    np.testing.assert_allclose(found, x @ held[1, 2].T, rtol=1e-4, atol=1e-3)


def test_parts_of_packed_weights(several_calls, monkeypatch):
    """Scales belong to outputs, which a part counts from its own first one."""
    monkeypatch.setattr(emitters, "set_xla_metadata", lambda **_: nullcontext())
    matrix, x = _normal(24, 64), _normal(1, 64)
    values, scales = quantise_array(jnp.asarray(matrix), 1)
    found = jax.jit(lanes.multiply)(jnp.asarray(x), Int8(values, scales))
    wide = np.asarray(values, np.float64) * np.asarray(scales)[:, None]
    np.testing.assert_allclose(found, x @ wide.T, rtol=1e-4, atol=1e-4)


def test_each_part_is_a_marked_call(several_calls):
    """XLA would leave the loop scalar."""
    stack, x = jnp.zeros((4, 50, 64), jnp.uint16), jnp.zeros((2, 64))
    code = jax.jit(lanes.multiply_rows).lower(x, stack, jnp.int32(1)).as_text()
    calls = [line for line in code.splitlines() if " call @" in line]
    assert len(calls) == 10 and all(MARK in line for line in calls)


def test_a_call_gets_nothing_that_it_does_not_read():
    """XLA ends the process, without a word of what was wrong."""

    def doubled(first, unread, last):
        del unread
        half = first * 0.5
        del half
        return last * 2

    x = jnp.arange(3.0)
    code = jax.jit(lambda x: emitters.call(doubled, x, x + 1, x + 2)).lower(x).as_text()
    (call,) = [line for line in code.splitlines() if " call @" in line]
    assert call.count("tensor<3xf32>") == 2, call  # an argument, and what it gives


@pytest.mark.parametrize(("of", "number"), [((1, 64, 64), 2), ((4, 50, 64), 3)])
def test_an_index_into_an_axis_that_is_taken_whole_is_none(several_calls, of, number):
    """XLA finds that it is without effect: see the test above."""
    stack, x = jnp.zeros(of, jnp.uint16), jnp.zeros((2, 64))
    one_part = lambda x, s: lanes.multiply_rows(x, s, jnp.int32(0), size=5)  # noqa: E731
    code = jax.jit(one_part).lower(x, stack).as_text()
    call = next(line for line in code.splitlines() if " call @" in line)
    numbers = call[call.index(" : (") : call.index(" -> ")].count("tensor<ui32>")
    assert numbers == number - 1, call


def test_a_loop_of_calls_is_not_one_kernel(several_calls):
    """It would run on one thread."""
    stack, x = jnp.zeros((4000, 64), jnp.uint16), jnp.zeros((2, 64))
    assert "stablehlo.sort" in jax.jit(lanes.multiply).lower(x, stack).as_text()


@pytest.mark.parametrize(
    ("cores", "values", "count"),
    [(1, 1 << 20, 1), (2, 1 << 20, 10), (4, 1 << 20, 20), (4, 1 << 10, 1)],
)
def test_calls_by_cores_and_size(monkeypatch, cores, values, count):
    """Threads that are not there, or that wake for a product of a microsecond."""
    monkeypatch.setattr(emitters, "cores", lambda: cores)
    assert emitters.calls(values) == count


def test_an_option_that_xla_does_not_have():
    """Another version of jaxlib could run no model at all."""
    assert emitters.accepted((("xla_cpu_no_such_option", False),)) == ()
