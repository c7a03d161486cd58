"""FP8 in blocks: every value, any cut of the blocks, and every kernel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.execution import lanes_found
from jaxmoe.ops import emitters, lanes
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts import apply_experts
from jaxmoe.ops.experts.lanes import MOST_ROWS
from jaxmoe.ops.fp8 import DTYPE, MOST, Fp8, blocks_of, dequantise, quantise
from jaxmoe.ops.stack import OfLayer, cut, take

pytestmark = pytest.mark.thorough

E, K, D, F = 8, 3, 72, 40
BLOCK = (16, 24)


def _jit(function):
    """As programs are compiled where the vectorised loop is to be had."""
    options = dict(emitters.options()) if lanes_found().width > 1 else {}
    return jax.jit(function, compiler_options=options)


_rows = _jit(lanes.multiply_rows)


_widen = jax.jit(widen, static_argnames="dtype")
_reference = jax.jit(partial(apply_experts, implementation="reference"))


def _floats(values, scales, block):
    """The format's definition, value by value, in float64."""
    rows, columns = np.indices(values.shape[-2:])
    blocks = scales[..., rows // block[0], columns // block[1]]
    return values.astype(np.float64) * blocks.astype(np.float64)


def _random(*outer, rows, columns, block=BLOCK):
    random = np.random.default_rng([*outer, rows, columns])
    values = random.normal(size=(*outer, rows, columns)).astype(np.float32)
    shape = (*outer, *blocks_of((rows, columns), block))
    return values.astype(DTYPE), random.uniform(0.1, 2, shape).astype(np.float32)


def _packed(values, scales, block=BLOCK):
    return Fp8.of(jnp.asarray(values), jnp.asarray(scales), block, 1)


@pytest.mark.optimised
def test_every_value_is_read_exactly():
    """All 254 numbers, subnormal ones too, by the loop and widened."""
    values = np.arange(256, dtype=np.uint8).view(DTYPE)
    values = np.where(np.isnan(values.astype(np.float32)), 0, values).astype(DTYPE)
    values = values.reshape(1, 8, 32)
    packed = _packed(values, np.full((1, 1, 1), 0.3, np.float32), (128, 128))
    expected = values.astype(np.float32) * np.float32(0.3)
    np.testing.assert_array_equal(widen(packed), expected)
    for column in range(32):
        x = jnp.zeros((2, 32)).at[:, column].set(1)
        found = _rows(x, packed, 0)
        np.testing.assert_array_equal(found, [expected[0, :, column]] * 2)


BLOCKS = [(128, 128), BLOCK, (7, 5), (1, 32)]
SIZES = [(10, 32), (257, 300), (130, 260)]


# By default each block once, and each size.
@pytest.mark.parametrize(
    ("size", "block"),
    [
        pytest.param(size, block, marks=() if (i + j) % 3 == 1 else pytest.mark.slow)
        for i, block in enumerate(BLOCKS)
        for j, size in enumerate(SIZES)
    ],
    ids=str,
)
@pytest.mark.optimised
def test_the_loop_equals_the_product(size, block):
    """Outputs, inputs and lines that do not divide into blocks, nor end with one."""
    rows, columns = size
    values, scales = _random(2, rows=rows, columns=columns, block=block)
    packed = _packed(values, scales, block)
    floats = _floats(values, scales, block)
    np.testing.assert_allclose(_widen(packed), floats, rtol=1e-6)
    wide = dequantise(values, scales, block)
    for dtype in (jnp.float32, jnp.bfloat16):  # rounded once, by the product
        np.testing.assert_array_equal(_widen(packed, dtype), wide.astype(dtype))
    x = np.random.default_rng(0).normal(size=(2, columns)).astype(np.float32)
    expected = x.astype(np.float64) @ floats[1].T
    for count in (1, 2):
        found = _rows(jnp.asarray(x[:count]), packed, jnp.int32(1))
        np.testing.assert_allclose(found, expected[:count], rtol=1e-4, atol=2e-4)


def test_cuts_and_other_shapes_keep_their_scales():
    """Heads and rows begin in the middle of blocks; gate and up begin anew."""
    values, scales = _random(rows=6 * 20, columns=D)
    floats = widen(_packed(values, scales)).reshape(6, 20, D)
    heads = _packed(values.reshape(6, 20, D), scales)
    np.testing.assert_array_equal(widen(heads), floats)
    some = cut(heads, jnp.int32(2), 3)
    np.testing.assert_array_equal(widen(some), floats[2:5])
    flat = heads.reshape(-1, D)
    part, rows = cut(flat, 21, 50), floats.reshape(-1, D)
    np.testing.assert_array_equal(widen(part), rows[21:71])
    np.testing.assert_array_equal(widen(cut(part, 3, 7)), rows[24:31])

    values, scales = _random(2, rows=F, columns=D)
    both = _packed(values, scales)
    floats = widen(both).reshape(-1, D)
    flat = both.reshape(-1, D)
    np.testing.assert_array_equal(widen(flat), floats)
    np.testing.assert_array_equal(widen(cut(flat, 30, 20)), floats[30:50])

    values, scales = _random(rows=F, columns=6 * 20)
    wide = jnp.asarray(values.reshape(F, 6, 20))
    inputs = Fp8.of(wide, jnp.asarray(scales), BLOCK, 2)
    expected = dequantise(values, scales, BLOCK)
    np.testing.assert_array_equal(widen(inputs), expected.reshape(F, 6, 20))
    np.testing.assert_array_equal(widen(inputs.reshape(F, -1)), expected)


def test_bits_may_be_taken_late():
    """Accelerators take them of what was cut, and would compute with other floats."""
    values, scales = _random(2, rows=40, columns=D)
    held = OfLayer(jnp.asarray(values[None]), jnp.int32(0))
    scale = OfLayer(jnp.asarray(scales[None]), jnp.int32(0))
    first, late = (
        Fp8.of(held, scale, BLOCK, 1, bits_first=bits_first)
        for bits_first in (True, False)
    )
    assert (first.values.dtype, late.values.dtype) == (jnp.uint8, DTYPE)
    for part in (
        lambda packed: packed.widen(jnp.float32),
        lambda packed: packed.cut(1, 1).widen(jnp.float32),
        lambda packed: packed.take(jnp.array([1, 0, 1])).widen(jnp.float32),
        lambda packed: packed.read(1, 5, 32, 20, 32),
    ):
        np.testing.assert_array_equal(jax.jit(part)(late), jax.jit(part)(first))


def test_projections_multiply_by_the_floats():
    """Tiles of a large weight would have the scales of others."""
    values, scales = _random(rows=2100, columns=96, block=(128, 128))
    packed = _packed(values, scales, (128, 128))
    x = np.random.default_rng(0).normal(size=(3, 96)).astype(np.float32)
    expected = x.astype(np.float64) @ _floats(values, scales, (128, 128)).T
    found = _jit(lanes.multiply)(jnp.asarray(x), packed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def _case(rows):
    random = np.random.default_rng(rows)
    chosen = np.stack([random.permutation(E)[:K] for _ in range(rows)])
    chosen[random.random((rows, K)) < 0.2] = -1
    weights = random.dirichlet(np.ones(K), size=rows).astype(np.float32)
    x = random.normal(size=(rows, D)).astype(np.float32)
    gate_up = _packed(*_random(E, 2, rows=F, columns=D))
    down = _packed(*_random(E, rows=D, columns=F))
    return (jnp.asarray(x), jnp.asarray(chosen), jnp.asarray(weights)), (gate_up, down)


ROWS = [
    ("reference", 9),
    ("batched", 9),
    *((loop, rows) for loop in ("blocks", "lanes") for rows in (1, 9, MOST_ROWS + 1)),
]
"""Loops take other numbers of rows at once; the others compute all rows alike."""


@pytest.mark.parametrize(("implementation", "rows"), ROWS)
def test_experts_are_those_of_the_floats(implementation, rows):
    """Gate for up, or one expert's scales for another's; of a layer of a stack."""
    routing, packed = _case(rows)
    of_layer = [
        Fp8.of(
            OfLayer(jnp.stack([part.values, part.values]), jnp.int32(1)),
            OfLayer(jnp.stack([part.scales * 0, part.scales]), jnp.int32(1)),
            BLOCK,
            1,
        )
        for part in packed
    ]
    run = partial(apply_experts, implementation=implementation)
    expected = _reference(*routing, *map(_widen, packed))
    found = _jit(run)(*routing, *of_layer)
    atol = 5e-6 * float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_quantised_to_the_nearest():
    """A block's largest value is 448; all others are within half a step of theirs."""
    weight = np.random.default_rng(0).normal(size=(3, 50, 70)).astype(np.float32)
    weight[0, :16, :24] = 0
    values, scales = quantise(weight, BLOCK)
    assert values.dtype == DTYPE and scales.shape == (3, 4, 3)
    assert np.abs(values.astype(np.float32)).max() == MOST
    found = dequantise(values, scales, BLOCK)
    # Three bits after the point: half a step is a sixteenth of the power of two below.
    error = np.abs(found - weight)
    steps = np.repeat(np.repeat(scales, 16, 1)[:, :50], 24, 2)[:, :, :70]
    assert (error <= np.maximum(np.abs(weight) / 16, steps * 2.0**-9) * 1.001).all()
    taken = take(_packed(values, scales), jnp.array([2, 0]))
    np.testing.assert_array_equal(widen(taken), found[[2, 0]])
