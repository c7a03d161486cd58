"""Every implementation of the experts: the same numbers, nothing dropped or leaked."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops.activations import SWIGLU, ClippedSwiGLU, SwiGLU
from jaxmoe.ops.experts import ExpertBias, apply_experts, runs_kernels
from jaxmoe.ops.experts.blocks import rows_at_once
from jaxmoe.ops.stack import OfLayer

# Each number of rows and of choices is a program for each implementation: tests that do
# not need others take SOME or MANY rows of K choices.
E, D, F, K = 8, 24, 16, 3
SOME, MANY = 17, 70
# Interpreted, kernels take a second or more a case; `pallas_test.py` has quick ones.
PALLAS = pytest.param("pallas", marks=pytest.mark.slow)
ALL = ["reference", "batched", "blocks", "lanes", "ragged", PALLAS]
implementations = pytest.mark.parametrize("implementation", ALL)

_apply = jax.jit(apply_experts, static_argnames=("implementation", "activation"))

# 1 binds on about a third of these inputs, 7 never.
ACTIVATIONS = {"swiglu": SWIGLU, "clipped": ClippedSwiGLU(limit=1.0)}


def _weights(seed=0, experts=E):
    rng = np.random.default_rng(seed)
    gate_up = rng.normal(size=(experts, 2, F, D)) / np.sqrt(D)
    down = rng.normal(size=(experts, D, F)) / np.sqrt(F)
    return jnp.asarray(gate_up, jnp.float32), jnp.asarray(down, jnp.float32)


def _routing(rows, k, seed=0, experts=E):
    """x, k distinct experts and their weights for every row."""
    rng = np.random.default_rng([rows, k, seed])
    x = jnp.asarray(rng.normal(size=(rows, D)), jnp.float32)
    chosen = np.stack([rng.permutation(experts)[:k] for _ in range(rows)])
    weights = rng.dirichlet(np.ones(k), size=rows)
    return x, jnp.asarray(chosen, jnp.int32), jnp.asarray(weights, jnp.float32)


def _bias(seed=0, experts=E):
    rng = np.random.default_rng([seed, 1])
    shapes = (experts, 2, F), (experts, D)
    return ExpertBias(*(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes))


def _hidden(activation, gate, up):
    if isinstance(activation, SwiGLU):
        return gate / (1 + np.exp(-gate)) * up
    gate = np.minimum(gate, activation.limit)
    up = np.clip(up, -activation.limit, activation.limit)
    return (up + 1) * gate / (1 + np.exp(-activation.alpha * gate))


def _loop(x, experts, *floats, activation=SWIGLU, bias=None):
    """The formula, row by row, in float64."""
    x, weights, gate_up, down = (np.asarray(a, np.float64) for a in (x, *floats))
    none = np.zeros((len(down), 2, down.shape[2])), np.zeros(down.shape[:2])
    first, last = (np.asarray(a, np.float64) for a in bias or none)
    out = np.zeros_like(x)
    for n, row in enumerate(np.asarray(experts)):
        for j, e in enumerate(row):
            if e >= 0:
                hidden = _hidden(activation, *(gate_up[e] @ x[n] + first[e]))
                out[n] += weights[n, j] * (down[e] @ hidden + last[e])
    return out


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)


# -- equal to the formula ------------------------------------------------------------


@implementations
@pytest.mark.parametrize(("rows", "k"), [(1, 1), (1, K), (1, E), (5, 1), (SOME, K)])
def test_equals_the_formula(implementation, rows, k):
    """Any routing, with and without empty places, against a loop in float64."""
    x, experts, weights = _routing(rows, k)
    holes = np.random.default_rng(0).random((rows, k)) < 0.4
    for chosen in (experts, jnp.where(holes, -1, experts)):
        args = (x, chosen, weights, *_weights())
        _close(_apply(*args, implementation=implementation), _loop(*args))


@pytest.mark.thorough
@pytest.mark.parametrize("rows", [2, 16, 17, 32, 33, 256, 257])
@pytest.mark.parametrize("implementation", ["blocks", "lanes"])
def test_equals_the_formula_across_numbers_of_rows(implementation, rows):
    """Each border where the loop takes other numbers of rows at once, on both sides."""
    args = (*_routing(rows, K), *_weights())
    _close(_apply(*args, implementation=implementation), _loop(*args))


def test_borders_of_rows_at_once_are_those_tested():
    """The rows above must straddle the real borders."""
    borders = [n for n in range(2, 2000) if rows_at_once(n) != rows_at_once(n - 1)]
    assert borders == [17, 33, 257]


@pytest.mark.thorough
@implementations
@pytest.mark.parametrize(
    ("rows", "activation", "biased"),
    [
        # Alone, what the next case has together.
        pytest.param(SOME, "swiglu", True, marks=pytest.mark.slow),
        pytest.param(SOME, "clipped", False, marks=pytest.mark.slow),
        (SOME, "clipped", True),
        (1, "clipped", True),
        pytest.param(MANY, "clipped", True, marks=pytest.mark.slow),
    ],
)
def test_activations_and_biases(implementation, rows, activation, biased):
    """GPT-OSS's experts: one part left out, or of another expert, moves every logit."""
    x, experts, weights = _routing(rows, K)
    experts = jnp.where(np.random.default_rng(0).random((rows, K)) < 0.2, -1, experts)
    activation = ACTIVATIONS[activation]
    args = (x, experts, weights, *_weights())
    kind = {"activation": activation, "bias": _bias() if biased else None}
    found = _apply(*args, **kind, implementation=implementation)
    _close(found, _loop(*args, **kind))


@pytest.mark.thorough
@implementations
@pytest.mark.optimised
def test_biases_as_bits_are_the_bfloat16_values_exactly(implementation):
    """They are held as the matrices are, and would be added as integers."""
    narrow = [b.astype(jnp.bfloat16) for b in _bias()]
    bits = ExpertBias(*(jnp.asarray(np.asarray(b).view(np.uint16)) for b in narrow))
    wide = ExpertBias(*(b.astype(jnp.float32) for b in narrow))
    args = (*_routing(SOME, K), *_weights())
    one, other = (
        _apply(*args, bias=bias, implementation=implementation) for bias in (bits, wide)
    )
    np.testing.assert_array_equal(one, other)


@implementations
def test_a_layer_of_a_stack_has_its_own_biases(implementation):
    """Scanned layers would all add the first one's."""
    layers = [_bias(seed) for seed in range(3)]
    stacks = [jnp.stack(parts) for parts in zip(*layers, strict=True)]
    args = (*_routing(9, 2), *_weights())
    run = jax.jit(
        lambda layer: apply_experts(
            *args,
            bias=ExpertBias(*(OfLayer(stack, layer) for stack in stacks)),
            implementation=implementation,
        )
    )
    for layer, bias in enumerate(layers):
        _close(run(layer), _loop(*args, bias=bias))


@pytest.mark.thorough
@implementations
@pytest.mark.optimised
def test_a_row_does_not_feel_the_others_with_biases(implementation):
    """As below: a bias is added in whatever block the row stands."""
    kind = {"activation": ACTIVATIONS["clipped"], "bias": _bias()}
    x, experts, weights = _routing(SOME, K)
    order = np.random.default_rng(2).permutation(SOME)
    run = partial(_apply, **kind, implementation=implementation)
    found = run(x, experts, weights, *_weights())
    turned = run(x[order], experts[order], weights[order], *_weights())
    np.testing.assert_array_equal(np.asarray(found)[order], turned)


SKEWS = {
    "all rows to one expert": lambda rows: np.full((rows, 1), 5),
    "all rows to the same three": lambda rows: np.tile([7, 0, 3], (rows, 1)),
    "one row elsewhere": lambda rows: np.where(np.arange(rows)[:, None] == 9, 2, 6),
    "one expert never chosen": lambda rows: np.arange(rows)[:, None] % (E - 1),
    "one expert twice in a row": lambda rows: np.tile([4, 4], (rows, 1)),
}


def _padded(experts):
    """K choices a row, the further ones empty."""
    more = K - experts.shape[1]
    return jnp.asarray(np.pad(experts, ((0, 0), (0, more)), constant_values=-1))


@implementations
@pytest.mark.parametrize("skew", SKEWS.values(), ids=SKEWS)
def test_nothing_is_dropped_however_skewed(implementation, skew):
    """A capacity factor would truncate the rows of the popular expert (promise 5)."""
    experts = _padded(skew(MANY)).astype(jnp.int32)
    x, _, weights = _routing(MANY, K)
    args = (x, experts, weights, *_weights())
    _close(_apply(*args, implementation=implementation), _loop(*args))


@implementations
def test_rows_without_experts_are_zero(implementation):
    """Slots at rest hold -1 everywhere; their weights may be anything, NaN too."""
    x, experts, weights = _routing(SOME, K)
    none = jnp.full_like(experts, -1)
    nans = jnp.full_like(weights, jnp.nan)
    found = _apply(x, none, nans, *_weights(), implementation=implementation)
    np.testing.assert_array_equal(found, np.zeros((SOME, D)))
    some = experts.at[2].set(-1)
    found = _apply(
        x, some, weights.at[2].set(jnp.nan), *_weights(), implementation=implementation
    )
    np.testing.assert_array_equal(found[2], np.zeros(D))
    assert jnp.isfinite(found).all()


# -- precision -----------------------------------------------------------------------


@implementations
@pytest.mark.optimised
def test_bits_are_the_bfloat16_values_exactly(implementation):
    """uint16 weights must equal float32 weights of the same values, bit for bit.

    "lanes" adds up a cache line of either in its own order: as close as float32 is.
    """
    narrow = [w.astype(jnp.bfloat16) for w in _weights()]
    bits = [jnp.asarray(np.asarray(w).view(np.uint16)) for w in narrow]
    wide = [w.astype(jnp.float32) for w in narrow]
    routing = _routing(SOME, K)
    found, expected = (
        _apply(*routing, *weights, implementation=implementation)
        for weights in (bits, wide)
    )
    if implementation == "lanes":
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


@implementations
def test_bfloat16_activations_give_bfloat16(implementation):
    """On accelerators activations are bfloat16, and sums stay in float32."""
    x, experts, weights = _routing(SOME, K)
    narrow = [a.astype(jnp.bfloat16) for a in (x, weights, *_weights())]
    args = (narrow[0], experts, *narrow[1:])
    found = _apply(*args, implementation=implementation)
    assert found.dtype == jnp.bfloat16
    expected = _loop(*args)
    np.testing.assert_allclose(
        found.astype(jnp.float32), expected, rtol=0.03, atol=0.02
    )


# -- one row and the others ----------------------------------------------------------


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("rows", [SOME, MANY])
@pytest.mark.optimised
def test_a_row_does_not_feel_the_others(implementation, rows):
    """A sample must keep its bits whoever shares the batch (promise 2)."""
    x, experts, weights = _routing(rows, K)
    other_x, other_experts, other_weights = _routing(rows, K, seed=1)
    kept = rows // 2
    mixed = (
        other_x.at[kept].set(x[kept]),
        other_experts.at[kept].set(experts[kept]),
        other_weights.at[kept].set(weights[kept]),
    )
    run = partial(_apply, implementation=implementation)
    alone = run(x, experts, weights, *_weights())[kept]
    np.testing.assert_array_equal(run(*mixed, *_weights())[kept], alone)
    at_rest = jnp.full_like(experts, -1).at[kept].set(experts[kept])
    np.testing.assert_array_equal(run(x, at_rest, weights, *_weights())[kept], alone)
    nans = jnp.full_like(x, jnp.nan).at[kept].set(x[kept])
    found = run(nans, experts, weights, *_weights())[kept]
    np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize("implementation", ALL)
@pytest.mark.parametrize("rows", [SOME, MANY])
@pytest.mark.optimised
def test_a_row_does_not_feel_its_place(implementation, rows):
    """A refilled sample sits in another slot and must keep its bits."""
    x, experts, weights = _routing(rows, K)
    order = np.random.default_rng(2).permutation(rows)
    run = partial(_apply, implementation=implementation)
    straight = run(x, experts, weights, *_weights())
    moved = run(x[order], experts[order], weights[order], *_weights())
    np.testing.assert_array_equal(moved, straight[order])


@pytest.mark.parametrize(
    "implementation", ["reference", "batched", "blocks", "lanes", PALLAS]
)
@pytest.mark.optimised
def test_broken_weights_stay_with_their_expert(implementation):
    """NaN of an expert nobody chose, or of the one -1 is read as, must not leak."""
    gate_up, down = _weights()
    broken = (gate_up.at[jnp.array([0, 5])].set(jnp.nan), down.at[0].set(jnp.inf))
    x, _, weights = _routing(SOME, K)
    experts = jnp.tile(jnp.array([[3, -1, 6]]), (SOME, 1))
    run = partial(_apply, implementation=implementation)
    expected = run(x, experts, weights, gate_up, down)
    found = run(x, experts, weights, *broken)
    np.testing.assert_array_equal(found, expected)


# -- gradients -----------------------------------------------------------------------

ROUTINGS = {
    "even": lambda rows: np.arange(2 * rows).reshape(rows, 2) % E,
    "random, some places empty": lambda rows: np.random.default_rng(3).choice(
        [-1, 0, 2, 5], (rows, 2)
    ),
    "no place filled": lambda rows: np.full((rows, 2), -1),
    **SKEWS,
}


@partial(jax.jit, static_argnames=("implementation", "activation"))
def _gradients(
    x, experts, weights, gate_up, down, bias, implementation, activation=SWIGLU
):
    """Of a sum of the outputs in which each counts differently."""

    def total(x, weights, gate_up, down, bias):
        out = apply_experts(
            x,
            experts,
            weights,
            gate_up,
            down,
            bias=bias,
            activation=activation,
            implementation=implementation,
        )
        return (out * jnp.cos(jnp.arange(out.size)).reshape(out.shape)).sum()

    every = (0, 1, 2, 3) if bias is None else (0, 1, 2, 3, 4)
    return jax.tree.leaves(
        jax.grad(total, argnums=every)(x, weights, gate_up, down, bias)
    )


@pytest.mark.parametrize("implementation", ["batched", "ragged"])
@pytest.mark.parametrize("rows", [3, pytest.param(70, marks=pytest.mark.slow)])
@pytest.mark.parametrize("routing", ROUTINGS.values(), ids=ROUTINGS)
def test_gradients_equal_those_of_the_reference(implementation, rows, routing):
    """Training would follow another loss than the one that it reports."""
    experts = _padded(routing(rows)).astype(jnp.int32)
    x, _, weights = _routing(rows, K)
    _same_gradients((x, experts, weights, *_weights(), None), implementation)


@pytest.mark.parametrize("implementation", ["batched", "ragged"])
def test_gradients_of_biases_equal_those_of_the_reference(implementation):
    """A bias would not be trained, or by rows that did not choose its expert."""
    experts = jnp.asarray(ROUTINGS["random, some places empty"](9), jnp.int32)
    x, _, weights = _routing(9, 2)
    args = (x, experts, weights, *_weights(), _bias())
    _same_gradients(args, implementation, activation=ACTIVATIONS["clipped"])


def _same_gradients(args, implementation, **kind):
    found = _gradients(*args, **kind, implementation=implementation)
    expected = _gradients(*args, **kind, implementation="reference")
    names = ("x", "weights", "gate_up", "down", "gate_up bias", "down bias")
    for name, one, other in zip(names, found, expected, strict=False):
        largest = float(jnp.abs(other).max())
        np.testing.assert_allclose(
            one, other, rtol=1e-4, atol=1e-6 * largest, err_msg=name
        )


# -- the call ------------------------------------------------------------------------


@implementations
def test_selection_under_vmap(implementation):
    """Policies are vmapped over rows; the experts take the flat result."""
    gate_up, down = _weights()

    @jax.jit
    def layer(x, scores):
        experts = jax.vmap(lambda row: jax.lax.top_k(row, 2)[1])(scores)
        weights = jax.nn.softmax(jnp.take_along_axis(scores, experts, axis=1))
        out = apply_experts(
            x, experts, weights, gate_up, down, implementation=implementation
        )
        return out, experts, weights

    x, _, _ = _routing(12, 2)
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(12, E)), jnp.float32)
    out, experts, weights = layer(x, scores)
    _close(out, _loop(x, experts, weights, gate_up, down))


@pytest.mark.parametrize(
    ("capability", "expected"),
    [("7.5", False), ("8.0", True), ("9.0", True), ("12.0", True), ("gfx942", False)],
)
def test_kernels_run_only_where_they_compile(capability, expected):
    """An older GPU, or one of another maker, would stop at the compiler."""
    assert runs_kernels(SimpleNamespace(compute_capability=capability)) == expected
    assert not runs_kernels(jax.devices("cpu")[0])


def test_kernels_are_refused_where_they_cannot_run(monkeypatch):
    """The error would else be one of jax's inner workings."""
    tpu = SimpleNamespace(platform="tpu", device_kind="TPU v5e")
    monkeypatch.setattr(jax, "devices", lambda: [tpu])
    with pytest.raises(ValueError, match="compute capability.*TPU v5e.*'ragged'"):
        apply_experts(*_routing(1, 1), *_weights(), implementation="pallas")


def test_unknown_implementation_is_refused(untyped):
    """A misspelt name must not quietly become the slow reference."""
    wrong: Any = "block"
    with pytest.raises(
        ValueError, match="reference, batched, blocks, lanes, ragged, pallas.*'block'"
    ):
        apply_experts(*_routing(1, 1), *_weights(), implementation=wrong)
