"""Experts that lie inputs first: the same matrices, one at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts import ExpertBias, apply_experts
from jaxmoe.ops.inputs_first import InputsFirst
from jaxmoe.ops.stack import OfLayer, cut, take

E, F, D, K = 6, 5, 7, 2


def _bank(seed: int = 0) -> tuple[InputsFirst, InputsFirst, np.ndarray, np.ndarray]:
    """Both products' weights, packed and as kernels have them."""
    rng = np.random.default_rng(seed)
    gate_up = rng.normal(size=(E, 2, F, D)).astype(np.float32)
    down = rng.normal(size=(E, D, F)).astype(np.float32)
    return (
        InputsFirst(jnp.asarray(gate_up.transpose(0, 3, 2, 1)), 2),
        InputsFirst(jnp.asarray(down.transpose(0, 2, 1)), 1),
        gate_up,
        down,
    )


def test_shapes_and_values_are_those_of_the_matrices():
    """A kernel would multiply by the transpose, or by gate and up mixed."""
    for packed, plain in zip(_bank()[:2], _bank()[2:], strict=True):
        assert packed.shape == plain.shape
        assert (packed.ndim, packed.size) == (plain.ndim, plain.size)
        index = jnp.array([[3, 0], [5, 5]])
        for found, expected in (
            (packed, plain),
            (cut(packed, 2, 3), plain[2:5]),
            (take(packed, index), plain[np.asarray(index)]),
        ):
            assert found.shape == expected.shape
            np.testing.assert_array_equal(widen(found), expected)


def test_one_layer_of_a_stack_that_holds_bits():
    """A scan over layers would read another layer, or integers."""
    _, packed, _, down = _bank()
    values = packed.values.astype(jnp.bfloat16)
    bits = jax.lax.bitcast_convert_type(values, jnp.uint16)
    layer = InputsFirst(OfLayer(jnp.stack([0 * bits, bits]), jnp.int32(1)), 1)
    rounded = down.astype(jnp.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(widen(layer), rounded)
    np.testing.assert_array_equal(widen(cut(layer, 4, 1)), rounded[4:5])


@pytest.mark.parametrize("kernel", ["reference", "batched", "blocks", "lanes"])
def test_kernels_compute_the_same(kernel):
    """Those of a GPU refuse what they would have to turn all at once."""
    *packed, gate_up, down = _bank()
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(9, D)), jnp.float32)
    experts = jnp.asarray(rng.integers(-1, E, (9, K)), jnp.int32)
    weights = jnp.asarray(rng.random((9, K)), jnp.float32)
    bias = ExpertBias(
        *(jnp.asarray(a, jnp.float32) for a in (gate_up.sum(3), down.sum(2)))
    )
    run = jax.jit(apply_experts, static_argnames="implementation")
    args = {"implementation": kernel, "bias": bias}
    found = run(x, experts, weights, *packed, **args)
    plain = run(x, experts, weights, jnp.asarray(gate_up), jnp.asarray(down), **args)
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", ["ragged", "pallas"])
def test_kernels_that_cannot_say_so(kernel):
    """Every expert of a layer would be turned for the few that are chosen."""
    args = jnp.ones((1, D)), jnp.zeros((1, K), jnp.int32), jnp.ones((1, K))
    with pytest.raises(ValueError, match=f"{kernel}.*InputsFirst.*blocks"):
        apply_experts(*args, *_bank()[:2], implementation=kernel)
