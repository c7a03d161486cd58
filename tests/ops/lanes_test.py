"""Products of few rows as one loop: the numbers, and that it is vectorised.

Compiled with the options that it is made for, as nothing else would try the order in
which a vectorised sum is added up.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.execution import lanes_found
from jaxmoe.ops import emitters, lanes
from jaxmoe.ops.activations import ClippedSwiGLU
from jaxmoe.ops.bf16_bits import hold_for
from jaxmoe.ops.experts import ExpertBias, apply_experts
from jaxmoe.ops.experts import lanes as loop
from jaxmoe.ops.experts.lanes import MOST_ROWS, rows_at_once
from jaxmoe.ops.stack import OfLayer

pytestmark = pytest.mark.optimised  # machine code

HELD = {"bits": jnp.bfloat16, "float32": jnp.float32}
WIDTHS = {
    "a line": 32,
    "several lines": 96,
    "less than a line": 7,
    "lines and a rest": 100,
    "more terms than one sum has": 32 * lanes.MOST_TERMS + 40,
}


@pytest.fixture(scope="module", autouse=True)
def _options():
    """The options exist here, or there is nothing to be tested."""
    if lanes_found().width == 1:
        pytest.skip(f"no vectorised loop on this machine: {lanes_found().why}")


def _jit(function):
    return jax.jit(function, compiler_options=dict(emitters.options()))


def _normal(*shape, seed=0, dtype=jnp.float32):
    values = np.random.default_rng([*shape, seed]).normal(size=shape)
    return jnp.asarray(values, jnp.float32).astype(dtype)


def _wide(array):
    return np.asarray(array.astype(jnp.float32), np.float64)


_rows = _jit(lanes.multiply_rows)
_multiply = _jit(lanes.multiply)

# -- that it is a loop of vectors ----------------------------------------------------


def test_xla_vectorises_the_loop():
    """It would be many times slower than the library that it stands in for.

    Read from what LLVM made of it, with a row alone and with two, and of each type.
    """
    assert lanes.vector_width() >= 4
    assert lanes.vector_width(values=1024) >= 4


def test_without_its_options_the_loop_is_scalar(monkeypatch):
    """The look at the code would find vectors that are not of the loop."""
    if emitters.by_calls():
        monkeypatch.setattr(emitters, "by_calls", lambda: False)
        assert lanes.vector_width() == 1
        return
    # tests/conftest.py sets the emitter for all programs.
    assert lanes.vector_width((("xla_cpu_use_fusion_emitters", True),)) == 1


def test_an_option_that_xla_does_not_have():
    """The fallback waits for this error."""
    with pytest.raises(RuntimeError, match="xla_cpu_no_such_option"):
        lanes.vector_width((("xla_cpu_no_such_option", True),))


# -- equal to the product ------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "held"),
    [
        pytest.param(width, held, id=f"{name}-{held}")
        for name, width in WIDTHS.items()
        for held in HELD
        if held == "bits" or name in ("a line", "lines and a rest")
    ],
)
@pytest.mark.parametrize("rows", [1, 2])
def test_equals_the_product(rows, width, held):
    """A column left out or counted twice, or a row in another's place."""
    matrices = _normal(3, 10, width, dtype=HELD[held])
    x = _normal(rows, width)
    found = _rows(x, hold_for("cpu", matrices), jnp.int32(1))
    expected = _wide(x) @ _wide(matrices)[1].T
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * width**0.5)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("out", [1, 2, 5])
def test_any_number_of_outputs(rows, out):
    """An odd number cannot be halved."""
    matrices, x = _normal(2, out, 40), _normal(rows, 40)
    expected = _wide(x) @ _wide(matrices)[1].T
    np.testing.assert_allclose(_rows(x, matrices, 1), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("out", [8, lanes.TILE_ROWS + 1, 4 * lanes.TILE_ROWS, 2053])
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_tiles_equal_the_product(rows, out):
    """A tile's border, whatever divides the rows of the weight; of a stack, too."""
    layers, x = _normal(2, out, 48, dtype=jnp.bfloat16), _normal(rows, 48)
    found = _multiply(x, OfLayer(hold_for("cpu", layers), jnp.int32(1)))
    expected = _wide(x) @ _wide(layers)[1].T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_bfloat16_rows_are_summed_in_float32():
    """A sum of 1024 in bfloat16 has two digits left."""
    matrices, x = _normal(1, 6, 1024, dtype=jnp.bfloat16), _normal(2, 1024)
    x = x.astype(jnp.bfloat16)
    found = _rows(x, hold_for("cpu", matrices), 0)
    np.testing.assert_allclose(found, _wide(x) @ _wide(matrices)[0].T, atol=2e-4)


# -- numbers that are none -----------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_row_stays_alone(bad):
    """Rows share loads, and must share nothing else (promise 2)."""
    matrices, x = hold_for("cpu", _normal(1, 6, 96, dtype=jnp.bfloat16)), _normal(2, 96)
    expected = _rows(x, matrices, 0)
    for broken in range(2):
        found = _rows(x.at[broken, 5].set(bad), matrices, 0)
        np.testing.assert_array_equal(found[1 - broken], expected[1 - broken])
        assert not np.isfinite(found[broken]).any()


def test_signs_of_zeros_and_numbers_near_zero():
    """Bits are moved, not computed: every bfloat16 comes out as the number it is."""
    values = jnp.asarray([-0.0, 0.0, 2e-38, -2e-38, 3e38, -1.5, 2e-30, np.inf])
    bits = hold_for("cpu", values.astype(jnp.bfloat16))
    one = jnp.ones((2, 1), jnp.float32)
    found = _rows(one, bits.reshape(1, -1, 1), 0)
    expected = np.asarray(values.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_array_equal(found, [expected, expected])


def test_subnormal_weights_are_those_of_the_block_loop():
    """A processor that takes them for zero must do so in either loop."""
    tiny = np.full((1, 2, 4, 64), 3, np.uint16)  # 3 * 2^-133
    down = hold_for("cpu", _normal(1, 64, 4, dtype=jnp.bfloat16))
    x = jnp.full((1, 64), 1e30, jnp.float32)
    routing = jnp.zeros((1, 1), jnp.int32), jnp.full((1, 1), 1e12, jnp.float32)
    lane, block = (
        _jit(partial(apply_experts, implementation=kernel))(
            x, *routing, jnp.asarray(tiny), down
        )
        for kernel in ("lanes", "blocks")
    )
    np.testing.assert_allclose(lane, block, rtol=1e-5)


# -- experts -------------------------------------------------------------------------

E, K, D, F = 8, 3, 96, 40
_lanes = _jit(partial(apply_experts, implementation="lanes"))


def _case(rows, *, held="bits", model=D, hidden=F, seed=0):
    random = np.random.default_rng([rows, seed])
    chosen = np.stack([random.permutation(E)[:K] for _ in range(rows)])
    weights = random.dirichlet(np.ones(K), size=rows)
    matrices = (
        _normal(E, 2, hidden, model, dtype=HELD[held]) * model**-0.5,
        _normal(E, model, hidden, dtype=HELD[held]) * hidden**-0.5,
    )
    return (
        _normal(rows, model, seed=seed),
        jnp.asarray(chosen, jnp.int32),
        jnp.asarray(weights, jnp.float32),
        *(hold_for("cpu", m.astype(HELD[held])) for m in matrices),
    )


def _floats(weight):
    """Values of what is held as bits, or as they are."""
    values = np.asarray(weight)
    if values.dtype == np.uint16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def _formula(x, experts, weights, gate_up, down):
    """Row by row, in float64."""
    x, weights, gate_up, down = map(_floats, (x, weights, gate_up, down))
    out = np.zeros_like(x)
    for n, row in enumerate(np.asarray(experts)):
        for j, e in enumerate(row):
            if e >= 0:
                gate, up = gate_up[e] @ x[n]
                out[n] += weights[n, j] * (down[e] @ (gate / (1 + np.exp(-gate)) * up))
    return out


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)


BORDERS = [1, 4, 5, 31, MOST_ROWS, MOST_ROWS + 1]


def test_borders_are_those_tested():
    """Numbers of rows on both sides of where the loop takes more at a time."""
    borders = [n for n in range(2, 2000) if rows_at_once(n) != rows_at_once(n - 1)]
    assert all({n - 1, n} <= set(BORDERS) for n in [*borders, MOST_ROWS + 1])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rows", "held"), [*((rows, "bits") for rows in BORDERS), (9, "float32")]
)
def test_experts_equal_the_formula(rows, held):
    """Either number of rows at a time, and what takes over from it."""
    case = _case(rows, held=held)
    _close(_lanes(*case), _formula(*case))


def test_small_experts_go_to_the_other_loop(monkeypatch):
    """A turn would cost more than what it computes."""
    case = _case(9)
    blocks = _jit(partial(apply_experts, implementation="blocks"))(*case)
    values = 3 * D * F
    for least, other in ((values, False), (values + 1, True)):
        monkeypatch.setattr(loop, "LEAST_VALUES", least)
        found = _jit(partial(apply_experts, implementation="lanes"))(*case)
        assert np.array_equal(found, blocks) == other


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("rows", "model", "hidden"), [(3, 33, 7), (12, 7, 33), (12, 64, 1), (3, 100, 50)]
)
def test_odd_shapes(rows, model, hidden):
    """No axis need be whole lines."""
    case = _case(rows, model=model, hidden=hidden)
    _close(_lanes(*case), _formula(*case))


def test_biases_and_another_activation():
    """GPT-OSS's experts, in either number of rows at a time."""
    random = np.random.default_rng(0)
    bias = ExpertBias(
        *(jnp.asarray(random.normal(size=s), jnp.float32) for s in ((E, 2, F), (E, D)))
    )
    kind = {"activation": ClippedSwiGLU(limit=1.0), "bias": bias}
    for rows in (4, 12):
        found, expected = (
            wrap(partial(apply_experts, implementation=kernel, **kind))(*_case(rows))
            for wrap, kernel in ((_jit, "lanes"), (jax.jit, "reference"))
        )
        _close(found, expected)


SKEWS = {
    "one expert": lambda rows: np.full((rows, K), 5),
    "three experts": lambda rows: np.tile([7, 0, 3], (rows, 1)),
    "one row elsewhere": lambda rows: np.where(np.arange(rows)[:, None] == 4, 2, 6),
    "mostly empty": lambda rows: np.where(np.arange(rows)[:, None] % 5, -1, [1, -1, 0]),
    "all empty": lambda rows: np.full((rows, K), -1),
}


@pytest.mark.parametrize("skew", SKEWS.values(), ids=SKEWS)
@pytest.mark.parametrize("rows", [40])
def test_skewed_routing(rows, skew):
    """However many rows one expert has, and experts without any (promise 5)."""
    x, _, weights, *matrices = _case(rows)
    chosen = jnp.asarray(np.broadcast_to(skew(rows), (rows, K)), jnp.int32)
    case = (x, chosen, weights, *matrices)
    _close(_lanes(*case), _formula(*case))


@pytest.mark.parametrize("rows", [2, 8, 64])
def test_a_row_feels_neither_the_others_nor_its_place(rows):
    """It shares a load with one that it has never met (promise 2), and keeps its bits
    as real part and as imaginary part of a sum."""
    x, experts, weights, *matrices = _case(rows)
    straight = _lanes(x, experts, weights, *matrices)
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(rows)
        moved = _lanes(x[order], experts[order], weights[order], *matrices)
        np.testing.assert_array_equal(moved, straight[order])
        kept = seed % rows
        others = jnp.arange(rows)[:, None] != kept
        other = _case(rows, seed=seed + 1)
        mixed = (
            jnp.where(others, b, a)
            for a, b in zip((x, experts, weights), other[:3], strict=True)
        )
        found = _lanes(*mixed, *matrices)[kept]
        np.testing.assert_array_equal(found, straight[kept])


@pytest.mark.thorough
def test_a_row_of_a_projection_feels_neither_the_others_nor_its_place():
    """The last of an odd number has no company of its own."""
    for rows, width in ((2, 200), (3, 200), (4, 256), (4, 1024)):
        weight = hold_for("cpu", _normal(64, width, dtype=jnp.bfloat16))
        x = _normal(rows, width)
        straight = _multiply(x, weight)
        for shift in range(1, rows):
            moved = _multiply(jnp.roll(x, shift, axis=0), weight)
            np.testing.assert_array_equal(jnp.roll(moved, -shift, axis=0), straight)
        broken = _multiply(x.at[:-1].set(jnp.nan), weight)
        np.testing.assert_array_equal(broken[-1], straight[-1])
