"""MXFP4: every value, and that every kernel multiplies by the same numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxmoe.execution import lanes_found
from jaxmoe.nn.banks import bank
from jaxmoe.ops import emitters, lanes
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts import apply_experts
from jaxmoe.ops.experts.lanes import MOST_ROWS
from jaxmoe.ops.mxfp4 import BLOCK, LARGEST_SCALE, Mxfp4, unpack
from jaxmoe.ops.stack import OfLayer, cut

pytestmark = pytest.mark.thorough

VALUES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
E, K, D, F = 8, 3, 96, 64


def _jit(function):
    """As programs are compiled where the vectorised loop is to be had."""
    options = dict(emitters.options()) if lanes_found().width > 1 else {}
    return jax.jit(function, compiler_options=options)


_widen = jax.jit(widen, static_argnames="dtype")
_reference = jax.jit(partial(apply_experts, implementation="reference"))


def _floats(blocks, scales):
    """The format's definition, in float64."""
    halves = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, BLOCK)
    signed = np.where(halves & 8, -1.0, 1.0) * VALUES[halves & 7]
    wide = signed * 2.0 ** (scales[..., None].astype(np.float64) - 127)
    return wide.reshape(*scales.shape[:-1], -1)


def _random(*outputs, width, seed=0):
    random = np.random.default_rng([*outputs, width, seed])
    blocks = random.integers(0, 256, (*outputs, width // BLOCK, 16), np.uint8)
    scales = random.integers(122, 126, blocks.shape[:-1], np.uint8)
    return blocks, scales


def _packed(*outputs, width, kind="apart", seed=0):
    return Mxfp4(*map(jnp.asarray, _random(*outputs, width=width, seed=seed)), kind)


@pytest.mark.optimised
def test_every_value_with_every_scale():
    """All 16 of all 253 scales, to the bit; in either half of a byte."""
    codes = np.arange(256, dtype=np.uint8)
    blocks = np.broadcast_to(codes.reshape(16, 16), (LARGEST_SCALE + 1, 16, 16))
    scales = np.broadcast_to(np.arange(LARGEST_SCALE + 1)[:, None], blocks.shape[:2])
    scales = scales.astype(np.uint8)
    found = np.asarray(_jit(unpack)(jnp.asarray(blocks), jnp.asarray(scales)))
    expected = _floats(blocks, scales)
    assert np.isfinite(expected.astype(np.float32)).all()
    np.testing.assert_array_equal(
        found.view(np.int32), expected.astype(np.float32).view(np.int32)
    )
    narrow = expected.astype(ml_dtypes.bfloat16).astype(np.float64)
    np.testing.assert_array_equal(narrow, expected)


@pytest.mark.parametrize("scale", [2, 127, LARGEST_SCALE])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.optimised
def test_the_loop_reads_every_value(rows, scale):
    """A sum that has one term is the value itself, wherever it stands in a block."""
    blocks = np.arange(256, dtype=np.uint8).reshape(1, 16, 1, 16)
    scales = np.full(blocks.shape[:-1], scale, np.uint8)
    packed = Mxfp4(jnp.asarray(blocks), jnp.asarray(scales))
    expected = _floats(blocks, scales)[0]
    x = np.zeros((rows, BLOCK), np.float32)
    for column in (0, 1, 17, 30):
        x[:] = 0
        x[:, column] = 1
        found = _rows(jnp.asarray(x), packed, 0)
        np.testing.assert_array_equal(found, [expected[:, column]] * rows)


_rows = _jit(lanes.multiply_rows)


@pytest.mark.parametrize("width", [BLOCK, 3 * BLOCK, 90 * BLOCK])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.optimised
def test_the_loop_equals_the_product(rows, width):
    """Columns in another order than those of the rows; a scale of another block."""
    packed = _packed(3, 10, width=width)
    x = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
    expected = x.astype(np.float64) @ np.asarray(_widen(packed), np.float64)[1].T
    found = _rows(jnp.asarray(x), packed, jnp.int32(1))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pairs_are_shown_apart():
    """Gate and up are side by side in the file, and one after the other in kernels."""
    blocks, scales = _random(E, F, 2, width=D)
    packed = Mxfp4(jnp.asarray(blocks), jnp.asarray(scales), "pairs")
    assert packed.shape == (E, 2, F, D) and packed.size == E * 2 * F * D
    expected = _floats(blocks, scales).swapaxes(1, 2)
    np.testing.assert_array_equal(widen(packed), expected)
    np.testing.assert_array_equal(widen(cut(packed, 3, 2)), expected[3:5])
    np.testing.assert_array_equal(
        widen(packed.reshape(E, 2 * F, D)), expected.reshape(E, 2 * F, D)
    )


def test_a_bank_declares_what_is_stored():
    """Names, shapes and axes: a tensor of the file is one run of each."""
    axes = ("experts", "gate_up", "expert_mlp", "embed")
    made = bank("mxfp4", (E, 2, F, D), jnp.bfloat16, axes)
    assert made.blocks.shape == (E, F, 2, D // BLOCK, 16)
    assert made.scales.shape == (E, F, 2, D // BLOCK)
    stored = ("experts", "expert_mlp", "gate_up", "embed")
    assert made.blocks.get_metadata()["axes"] == (*stored, "block")
    assert made[...].shape == (E, 2, F, D)
    axes = ("experts", "embed", "expert_mlp")
    assert bank("mxfp4", (E, D, F), jnp.bfloat16, axes)[...].shape == (E, D, F)
    with pytest.raises(ValueError, match="multiple of 32.*found 40"):
        bank("mxfp4", (E, D, 40), jnp.bfloat16, axes)


def _case(rows):
    random = np.random.default_rng(rows)
    chosen = np.stack([random.permutation(E)[:K] for _ in range(rows)])
    chosen[random.random((rows, K)) < 0.2] = -1
    weights = random.dirichlet(np.ones(K), size=rows).astype(np.float32)
    x = random.normal(size=(rows, D)).astype(np.float32)
    packed = _packed(E, F, 2, width=D, kind="pairs"), _packed(E, D, width=F)
    return (jnp.asarray(x), jnp.asarray(chosen), jnp.asarray(weights)), packed


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
    of_layer = jax.tree.map(
        lambda part: OfLayer(jnp.stack([part * 0, part]), jnp.int32(1)), packed
    )
    run = partial(apply_experts, implementation=implementation)
    expected = _reference(*routing, *map(_widen, packed))
    np.testing.assert_allclose(
        _jit(run)(*routing, *of_layer), expected, rtol=1e-4, atol=1e-4
    )
