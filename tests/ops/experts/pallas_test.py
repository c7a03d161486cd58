"""The kernels for GPUs: what the tests of every implementation do not reach.

Those take sizes of one tile; here are several tiles each way, with a rest. Interpreted
on CPU, and lowered for CUDA without a device.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops.activations import SWIGLU, ClippedSwiGLU
from jaxmoe.ops.experts import ExpertBias
from jaxmoe.ops.experts.pallas import (
    BLOCK,
    MOST_ROWS,
    TILE,
    apply_pallas,
    tile_size,
)
from jaxmoe.ops.experts.reference import apply_reference
from tests.described_gpu import described_gpu

pytestmark = pytest.mark.thorough

E, K, D, F = 6, 3, 2 * 64 + 8, 64 + 24

_apply = jax.jit(apply_pallas, static_argnames="activation")
KIND = {"activation": SWIGLU, "bias": None}


def _arguments(rows, dtype=jnp.float32, seed=0, D=D, F=F):
    """Rows, experts, of which 1 and 4 are never chosen, weights, and matrices."""
    rng = np.random.default_rng([rows, seed])
    x = rng.normal(size=(rows, D))
    experts = np.stack([rng.permutation([0, 2, 3, 5])[:K] for _ in range(rows)])
    weights = rng.dirichlet(np.ones(K), size=rows)
    matrices = np.random.default_rng(0)
    gate_up = matrices.normal(size=(E, 2, F, D)) / np.sqrt(D)
    down = matrices.normal(size=(E, D, F)) / np.sqrt(F)
    floats = (jnp.asarray(a, dtype) for a in (x, weights, gate_up, down))
    x, weights, gate_up, down = floats
    return x, jnp.asarray(experts, jnp.int32), weights, gate_up, down


# -- tiles ---------------------------------------------------------------------------


def test_these_sizes_have_several_tiles_and_a_rest():
    """Masks and sums over steps would not be tried."""
    for width in (D, F):
        for tile in (TILE, 64):  # 64: the step of float32
            assert width > tile and width % tile != 0


@pytest.mark.parametrize(
    ("width", "tile"), [(1, 16), (16, 16), (17, 32), (24, 32), (40, 64), (768, 128)]
)
def test_tiles_are_powers_of_two(width, tile):
    """Triton takes no others, and its products none below 16."""
    assert tile_size(width, 128) == tile


# -- numbers -------------------------------------------------------------------------


# Interpreted kernels of several tiles take seconds to compile: in every CI run float32
# here, and bfloat16 with biases.
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(jnp.float32, 1e-5), pytest.param(jnp.bfloat16, 1e-2, marks=pytest.mark.slow)],
)
def test_several_tiles_equal_the_reference(dtype, tolerance):
    """A tile left out, read twice or past the edge."""
    x, experts, weights, gate_up, down = _arguments(BLOCK + 7, dtype)
    args = (x, experts.at[3, 1].set(-1).at[5].set(-1), weights, gate_up, down)
    found, expected = _apply(*args, **KIND), apply_reference(*args, **KIND)
    _same(found, expected, dtype, tolerance)


def test_the_released_width_equals_the_reference():
    """768 is no multiple of 512: a kernel that is tried at 512 and 1024 only reads past
    the edge, or leaves a third of the sum out."""
    args = _arguments(2, D=32, F=768)
    found, expected = _apply(*args, **KIND), apply_reference(*args, **KIND)
    _same(found, expected, jnp.float32, 1e-5)


def test_many_rows_are_multiplied_once():
    """A prompt would read every expert again for each sixteen of its rows."""
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in _arguments(MOST_ROWS + 1)]
    few = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in _arguments(MOST_ROWS)]
    assert "ragged" in str(_apply.trace(*shapes, **KIND).jaxpr)
    assert "ragged" not in str(_apply.trace(*few, **KIND).jaxpr)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [pytest.param(jnp.float32, 1e-5, marks=pytest.mark.slow), (jnp.bfloat16, 1e-2)],
)
def test_biases_of_several_tiles_equal_the_reference(dtype, tolerance):
    """A tile would add what belongs to another, or what lies past the edge."""
    args = _arguments(BLOCK + 7, dtype)
    rng = np.random.default_rng(2)
    bias = ExpertBias(
        jnp.asarray(rng.normal(size=(E, 2, F)), dtype),
        jnp.asarray(rng.normal(size=(E, D)), dtype),
    )
    kind = {"activation": ClippedSwiGLU(limit=1.0), "bias": bias}
    found, expected = _apply(*args, **kind), apply_reference(*args, **kind)
    _same(found, expected, dtype, tolerance)
    plain = _apply(*args, **(kind | {"bias": None}))
    assert jnp.abs(plain - found).max() > 0.1


def _same(found, expected, dtype, tolerance):
    assert found.dtype == dtype
    found, expected = (np.asarray(a, np.float64) for a in (found, expected))
    np.testing.assert_allclose(found, expected, atol=tolerance * abs(expected).max())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_row_does_not_feel_what_shares_its_blocks(dtype):
    """A sample must keep its bits whoever shares the batch, NaN too (promise 2)."""
    rows, kept = BLOCK + 7, 11
    x, experts, weights, *matrices = _arguments(rows, dtype)
    alone = _apply(x, experts, weights, *matrices, **KIND)[kept]
    other_x, other_experts, other_weights, *_ = _arguments(rows, dtype, seed=1)
    place = 2
    moved = (
        other_x.at[:4].set(jnp.nan).at[place].set(x[kept]),
        other_experts.at[place].set(experts[kept]),
        other_weights.at[place].set(weights[kept]),
    )
    np.testing.assert_array_equal(_apply(*moved, *matrices, **KIND)[place], alone)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_experts_that_nobody_chose_do_not_matter(dtype):
    """Reading them all is what ruins a step; NaN shows where one is used."""
    x, experts, weights, gate_up, down = _arguments(BLOCK + 7, dtype)
    never = jnp.array([1, 4])
    broken = (gate_up.at[never].set(jnp.nan), down.at[never].set(jnp.inf))
    expected = _apply(x, experts, weights, gate_up, down, **KIND)
    found = _apply(x, experts, weights, *broken, **KIND)
    np.testing.assert_array_equal(found, expected)


# -- lowering ------------------------------------------------------------------------


def _lower(rows, k, experts, model, hidden, dtype, weight_dtype, activation, biased):
    shapes = (
        ((rows, model), dtype),
        ((rows, k), jnp.int32),
        ((rows, k), dtype),
        ((experts, 2, hidden, model), weight_dtype),
        ((experts, model, hidden), weight_dtype),
    )
    biases = (((experts, 2, hidden), weight_dtype), ((experts, model), weight_dtype))
    *args, first, last = (jax.ShapeDtypeStruct(*s) for s in (*shapes, *biases))
    bias = ExpertBias(first, last) if biased else None
    try:
        with described_gpu():
            traced = _apply.trace(*args, activation=activation, bias=bias)
            return traced.lower(lowering_platforms=("cuda",)).as_text()
    except RuntimeError as error:
        if "Triton compilation handler" in str(error):
            pytest.skip(f"this jax lowers Triton kernels with CUDA only: {error}")
        raise


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize(
    ("dtype", "weight_dtype"),
    [
        (jnp.bfloat16, jnp.bfloat16),
        (jnp.float32, jnp.float32),
        (jnp.float32, jnp.uint16),
    ],
)
@pytest.mark.parametrize(
    ("k", "experts", "model", "hidden"),
    [
        (8, 128, 2048, 768),
        pytest.param(4, 32, 2880, 2880, marks=pytest.mark.slow),
        (2, 8, 24, 40),
    ],
    ids=["Qwen3-30B-A3B", "GPT-OSS-20B", "small"],
)
@pytest.mark.parametrize(
    "kind", [(SWIGLU, False), (ClippedSwiGLU(), True)], ids=["plain", "biased"]
)
def test_lowers_for_cuda(rows, k, experts, model, hidden, dtype, weight_dtype, kind):
    """Triton refuses much that the interpreter takes; a GPU would be the first to say.

    Two kernels, and no operation between that makes a copy of the weights.
    """
    text = _lower(rows, k, experts, model, hidden, dtype, weight_dtype, *kind)
    calls = [line for line in text.splitlines() if "stablehlo.custom_call" in line]
    kernels = [line for line in calls if "triton" in line]
    assert len(kernels) == 2
    assert "_gate_up_kernel" in kernels[0] and "_down_kernel" in kernels[1]
    matrices = (
        f"tensor<{experts}x2x{hidden}x{model}x",
        f"tensor<{2 * experts}x{hidden}x{model}x",
        f"tensor<{experts}x{model}x{hidden}x",
    )
    for line in text.splitlines():
        if any(shape in line for shape in matrices):
            assert "@main" in line or "stablehlo.reshape" in line or line in kernels
