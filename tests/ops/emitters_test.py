"""Products as calls, which newer versions of XLA make a vectorised loop of.

Where the version at hand has no need of calls and cannot compile them (jax 0.10.2), the
mark that has each compiled by itself is left out, and what they compute is tested.
"""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops import emitters, lanes
from jaxmoe.ops.bf16_bits import hold_for, widen
from jaxmoe.ops.int8 import Int8, quantise_array
from jaxmoe.ops.stack import OfLayer

MARK = 'xla_cpu_small_call = "true"'
NEEDED = emitters.by_calls()


@pytest.fixture
def several(monkeypatch):
    """Calls, so many for each product."""

    def so_many(count: int = 10) -> None:
        monkeypatch.setattr(emitters, "calls", lambda values: count)

    monkeypatch.setattr(emitters, "by_calls", lambda: True)
    so_many()
    return so_many


@pytest.fixture
def compiled(several, monkeypatch):
    """Calls that this version can compile."""
    if not NEEDED:
        monkeypatch.setattr(emitters, "set_xla_metadata", lambda **_: nullcontext())
    return several


def _normal(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).normal(size=shape).astype(np.float32)


def _run(function, *arguments):
    """Compiled anew: another test's trace would hold another number of calls."""
    options = dict(emitters.options())
    return np.asarray(
        jax.jit(lambda *a: function(*a), compiler_options=options)(*arguments)
    )


def _held(kind, matrices):
    """Matrices [X, O, I] as a kernel gets them, and the floats that they stand for."""
    if kind == "float32":
        return jnp.asarray(matrices), matrices
    if kind == "bits":
        bits = hold_for("cpu", jnp.asarray(matrices, jnp.bfloat16))
        return bits, np.asarray(widen(bits))
    values, scales = quantise_array(jnp.asarray(matrices), 1)
    return Int8(values, scales), np.asarray(values) * np.asarray(scales)[..., None]


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("kind", ["float32", "bits", "int8"])
@pytest.mark.parametrize("shape", [(3, 40, 96), (3, 41, 100), (1, 3, 96), (2, 1, 64)])
def test_parts_are_the_whole_product(compiled, rows, kind, shape):
    """A part's border, a row's other half, the rest of an axis, an axis of one."""
    matrices, x = _normal(*shape), _normal(rows, shape[2])
    held, wide = _held(kind, matrices)
    index = jnp.int32(shape[0] - 1)
    found = _run(lanes.multiply_rows, jnp.asarray(x), held, index)
    np.testing.assert_allclose(found, x @ wide[-1].T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", [1, 2])
def test_parts_of_a_layer(compiled, layers):
    """A stack of one layer has no index that could be read."""
    stack = hold_for("cpu", jnp.asarray(_normal(layers, 4, 40, 64), jnp.bfloat16))
    x, layer = jnp.asarray(_normal(2, 64)), jnp.int32(layers - 1)
    found = _run(
        lambda x, s, i: lanes.multiply_rows(x, OfLayer(s, i), jnp.int32(2)),
        *(x, stack, layer),
    )
    wide = np.asarray(widen(stack))[-1, 2]
    np.testing.assert_allclose(found, np.asarray(x) @ wide.T, rtol=1e-4, atol=1e-4)


def test_longer_axes_than_one_sum_has(compiled):
    """Sums of an axis in several pieces, each in its own calls."""
    width = 32 * lanes.MOST_TERMS + 40
    held, wide = _held("bits", _normal(2, 24, width))
    x = _normal(2, width)
    found = _run(lanes.multiply_rows, jnp.asarray(x), held, jnp.int32(1))
    np.testing.assert_allclose(found, x @ wide[1].T, rtol=1e-4, atol=1e-3)


def test_bits_do_not_depend_on_the_number_of_calls(compiled):
    """An answer would depend on how many cores a process may use."""
    held, _ = _held("bits", _normal(2, 90, 96))
    x = jnp.asarray(_normal(2, 96))
    found = []
    for count in (1, 10, 20):
        compiled(count)
        found.append(_run(lanes.multiply_rows, x, held, jnp.int32(1)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_row_does_not_feel_its_place(compiled):
    """Promise 2: a row first or second, beside another or beside itself."""
    weight = hold_for("cpu", jnp.asarray(_normal(4096, 96), jnp.bfloat16))
    x = jnp.asarray(_normal(4, 96))
    found = _run(lanes.multiply, x, weight)
    turned = _run(lanes.multiply, x[::-1], weight)
    np.testing.assert_array_equal(found, turned[::-1])


def test_each_part_is_a_marked_call(several):
    """XLA would leave the loop scalar."""
    stack, x = jnp.zeros((4, 50, 64), jnp.uint16), jnp.zeros((2, 64))
    rows = jax.jit(lambda *a: lanes.multiply_rows(*a))
    code = rows.lower(x, stack, jnp.int32(1)).as_text()
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
    run = lambda x: emitters.kernel(doubled, x, x, x)(x, x + 1, x + 2)  # noqa: E731
    code = jax.jit(run).lower(x).as_text()
    (call,) = [line for line in code.splitlines() if " call @" in line]
    assert call.count("tensor<3xf32>") == 2, call  # an argument, and what it gives


@pytest.mark.parametrize(("shape", "numbers"), [((1, 64, 64), 1), ((4, 50, 64), 2)])
def test_an_index_into_an_axis_that_is_taken_whole_is_none(several, shape, numbers):
    """XLA finds that it is without effect: see the test above."""
    stack, x = jnp.zeros(shape, jnp.uint16), jnp.zeros((2, 64))
    some = lambda x, s: lanes.multiply_rows(x, s, jnp.int32(0), size=5)  # noqa: E731
    code = jax.jit(some).lower(x, stack).as_text()
    call = next(line for line in code.splitlines() if " call @" in line)
    types = call[call.index(" : (") : call.index(" -> ")]
    assert types.count("tensor<ui32>") == numbers, call


def test_a_loop_of_calls_is_not_one_kernel(several):
    """It would run on one thread."""
    stack, x = jnp.zeros((4000, 64), jnp.uint16), jnp.zeros((2, 64))
    code = jax.jit(lambda *a: lanes.multiply(*a)).lower(x, stack).as_text()
    assert "stablehlo.sort" in code


@pytest.mark.parametrize(
    ("cores", "values", "count"),
    [(1, 1 << 20, 1), (2, 1 << 20, 10), (4, 1 << 20, 20), (4, 1 << 10, 1)],
)
def test_calls_by_cores_and_size(monkeypatch, cores, values, count):
    """Threads that are not there, or that wake for a product of a microsecond."""
    monkeypatch.setattr(emitters, "cores", lambda: cores)
    assert emitters.calls(values) == count


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("calls", [1, 10])
def test_a_product_in_one_call_leaves_its_loop_a_kernel(monkeypatch, rows, calls):
    """Sorted for nothing, or on one thread for nothing: both count the same matrix."""
    monkeypatch.setattr(emitters, "by_calls", lambda: True)
    monkeypatch.setattr(emitters, "cores", lambda: 2)
    outputs = emitters.SEVERAL_FROM // 64 - (2 if calls == 1 else 0)
    stack, x = jnp.zeros((4 * outputs, 64), jnp.uint16), jnp.zeros((rows, 64))
    monkeypatch.setattr(lanes, "TILE_ROWS", outputs)
    code = jax.jit(lambda *a: lanes.multiply(*a)).lower(x, stack).as_text()
    assert code.count("call @of_read") == calls, code
    assert ("stablehlo.sort" in code) == (calls > 1)


def test_an_option_that_xla_does_not_have():
    """Another version of jaxlib could run no model at all."""
    assert emitters.accepted((("xla_cpu_no_such_option", False),)) == ()
