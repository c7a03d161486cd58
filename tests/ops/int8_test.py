"""Quantised weights: rounding, and that every kernel multiplies by the same numbers."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxmoe.execution import lanes_found
from jaxmoe.nn.linear import project
from jaxmoe.ops import emitters, lanes
from jaxmoe.ops.bf16_bits import hold_for, widen
from jaxmoe.ops.experts import apply_experts
from jaxmoe.ops.experts.lanes import MOST_ROWS
from jaxmoe.ops.int8 import Int8, quantise, quantise_array
from jaxmoe.ops.stack import OfLayer, cut
from tests.tiny import EXECUTION

pytestmark = pytest.mark.thorough

E, K, D, F = 8, 3, 96, 40


def _jit(function):
    """As programs are compiled where the vectorised loop is to be had."""
    options = dict(emitters.options()) if lanes_found().width > 1 else {}
    return jax.jit(function, compiler_options=options)


def _normal(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).normal(size=shape).astype(np.float32)


def _packed(*shape, seed=0):
    weight = _normal(*shape, seed=seed) * shape[-1] ** -0.5
    return Int8(*quantise_array(jnp.asarray(weight), 1))


# -- rounding ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_rounded_to_the_nearest(dtype):
    """A value would be off by more than half a step, or use half of its range."""
    weight = _normal(5, 7, 33).astype(dtype)
    found = quantise(weight)
    wide = weight.astype(np.float64)
    assert found.values.dtype == np.int8 and found.scales.shape == (5, 7)
    assert (np.abs(found.values).max(axis=-1) == 127).all()
    steps = wide / found.scales[..., None].astype(np.float64)
    assert np.abs(steps - found.values).max() <= 0.5 + 1e-5


def test_outputs_that_have_no_scale():
    """Zeros divided by their scale, tiny numbers by none, or NaN taken for a number."""
    rows = [[0.0, 0.0], [1e-44, -1e-44], [np.nan, 1.0], [-np.inf, 1.0], [-3e38, 3e38]]
    with np.errstate(all="raise", under="ignore"):
        found = quantise(np.array(rows, np.float32))
    np.testing.assert_array_equal(found.values[0], 0)
    wide = np.asarray(Int8(*map(jnp.asarray, found)).widen(jnp.float32))
    np.testing.assert_array_equal(wide[0], 0)
    assert np.isfinite(wide[1]).all() and np.abs(wide[1]).max() < 1e-43
    assert np.isnan(wide[2:4]).all()
    np.testing.assert_allclose(wide[4], rows[4], rtol=1e-6)


def test_bits_and_several_axes_of_inputs():
    """Bits would be quantised as integers, or heads have a scale each."""
    weight = jnp.asarray(_normal(6, 4, 8), jnp.bfloat16)
    values, scales = quantise_array(hold_for("cpu", weight), 2)
    expected = quantise(np.asarray(weight).reshape(6, 32))
    np.testing.assert_array_equal(values.reshape(6, 32), expected.values)
    np.testing.assert_array_equal(scales, expected.scales)
    packed = Int8(values, scales).reshape(6, -1)
    np.testing.assert_array_equal(
        widen(packed), expected.values * expected.scales[:, None]
    )


_widen = jax.jit(widen)
_reference = jax.jit(partial(apply_experts, implementation="reference"))

# -- products ------------------------------------------------------------------------


@pytest.mark.parametrize("width", [64, 7, 100, Int8.lanes * lanes.MOST_TERMS + 40])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.optimised
def test_the_loop_equals_the_product(rows, width):
    """A scale left out, or of another output; a column left out."""
    packed, x = _packed(3, 10, width), jnp.asarray(_normal(rows, width))
    found = _jit(lanes.multiply_rows)(x, packed, jnp.int32(1))
    expected = np.asarray(x, np.float64) @ np.asarray(_widen(packed), np.float64)[1].T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * width**0.5)


@pytest.mark.parametrize("products", ["lanes", "weight_left", "plain"])
@pytest.mark.parametrize("rows", [1, 3, 9])
def test_projections_equal_the_product(rows, products):
    """Tiles, of a weight that is one layer of a stack, and their scales."""
    shape = (2, 1300, 1024)  # more than two tiles, and a rest
    stack, x = _packed(*shape), jnp.asarray(_normal(rows, shape[-1]))
    layer = Int8(
        *(OfLayer(part, jnp.int32(1)) for part in (stack.values, stack.scales))
    )
    execution = replace(EXECUTION, products=products)
    found = _jit(partial(project, execution=execution))(x, layer)
    expected = np.asarray(x, np.float64) @ np.asarray(_widen(stack), np.float64)[1].T
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def _case(rows):
    random = np.random.default_rng(rows)
    chosen = np.stack([random.permutation(E)[:K] for _ in range(rows)])
    chosen[random.random((rows, K)) < 0.2] = -1
    weights = random.dirichlet(np.ones(K), size=rows).astype(np.float32)
    routing = jnp.asarray(_normal(rows, D)), jnp.asarray(chosen), jnp.asarray(weights)
    return routing, (_packed(E, 2, F, D), _packed(E, D, F))


ROWS = [
    ("reference", 9),
    ("batched", 9),
    *((loop, rows) for loop in ("blocks", "lanes") for rows in (1, 9, MOST_ROWS + 1)),
]
"""Loops take other numbers of rows at once; the others compute all rows alike."""


@pytest.mark.parametrize(("implementation", "rows"), ROWS)
def test_experts_are_those_of_the_widened_weights(implementation, rows):
    """Each kernel reads a packed expert its own way."""
    routing, packed = _case(rows)
    run = lambda *args: apply_experts(*args, implementation=implementation)  # noqa: E731
    found = _jit(run)(*routing, *packed)
    expected = _reference(*routing, *map(_widen, packed))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", "batched", "blocks", "lanes"])
def test_experts_of_a_layer_of_a_stack(implementation):
    """Integers of one layer would have the scales of another."""
    routing, packed = _case(5)
    of_layer = jax.tree.map(
        lambda part: OfLayer(jnp.stack([part * 0, part]), jnp.int32(1)), packed
    )
    run = partial(apply_experts, implementation=implementation)
    found = _jit(run)(*routing, *of_layer)
    np.testing.assert_array_equal(found, _jit(run)(*routing, *packed))


@pytest.mark.parametrize("implementation", ["ragged", "pallas"])
def test_kernels_of_floats_say_so(implementation):
    """They would widen all experts of a layer at once, or multiply by integers."""
    routing, packed = _case(1)
    with pytest.raises(ValueError, match=rf"{implementation}.*Int8.*blocks"):
        apply_experts(*routing, *packed, implementation=implementation)


@pytest.mark.optimised
def test_a_row_does_not_feel_its_neighbours():
    """Promise 2, of the loop that decodes."""
    routing, packed = _case(12)
    run = _jit(partial(apply_experts, implementation="lanes"))
    whole = run(*routing, *packed)
    order = np.random.default_rng(0).permutation(12)
    turned = run(*(part[order] for part in routing), *packed)
    np.testing.assert_array_equal(turned, np.asarray(whole)[order])


def test_cutting_is_lazy():
    """A cut of one expert would copy the layers' stack."""
    stack = _packed(2, 4, 6, 8)
    layer = jax.tree.map(lambda part: OfLayer(part, jnp.int32(1)), stack)
    text = str(jax.make_jaxpr(lambda index: widen(cut(layer, index, 1)))(0))
    assert "[2,4,6,8]" not in text.replace("i8[2,4,6,8]", "")
