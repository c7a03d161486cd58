"""Policies before they choose: defaults, values per layer, values that are refused."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import (
    AttentionConfig,
    DenseConfig,
    LayerConfig,
    ModelConfig,
    MoEConfig,
    NormConfig,
)
from jaxmoe.router.policies import (
    AdaptiveHead,
    Dropout,
    ExpertSample,
    GumbelTopK,
    Policy,
    TopK,
    TopP,
    for_model,
)
from jaxmoe.router.routing import choose_experts
from jaxmoe.router.scores import SoftmaxScores
from jaxmoe.typing import pytree

E, K, L = 16, 4, 3
FIT = {"k": K, "num_experts": E, "num_layers": L}
POLICIES = [TopK(), ExpertSample(), GumbelTopK(), AdaptiveHead(), TopP(), Dropout()]
policies = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)


# Policies of the tests are built without type checks where those would come first.
def _make(cls, **values) -> Any:
    return replace(cls(), **values)


# -- defaults and layers -------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "experts", "keep", "reach"),
    [(8, 128, 5, 32), (4, 32, 3, 16), (6, 64, 4, 24), (10, 512, 6, 40)]
    + [(8, 16, 5, 16), (1, 8, 1, 4), (2, 8, 2, 8), (3, 3, 2, 3), (1, 1, 1, 1)],
)
def test_defaults_are_the_papers(k, experts, keep, reach):
    """k_keep = k // 2 + 1 and r = 4 k: the four models of the paper, and small ones."""
    policy = ExpertSample().resolve(k=k, num_experts=experts, num_layers=2)
    assert policy.width == k
    np.testing.assert_array_equal(policy.k_keep, [keep] * 2)
    np.testing.assert_array_equal(policy.r, [reach] * 2)
    np.testing.assert_array_equal(policy.tau, [1.0] * 2)
    adaptive = AdaptiveHead().resolve(k=k, num_experts=experts, num_layers=2)
    np.testing.assert_array_equal(adaptive.r, [reach] * 2)


@policies
def test_resolved_numbers_are_one_per_layer(policy):
    """Unequal shapes or types among calls would compile the step again."""
    resolved = policy.resolve(**FIT)
    leaves = jax.tree.leaves(resolved)
    assert leaves
    for leaf in leaves:
        assert leaf.shape == (L,)
        assert leaf.dtype in (np.int32, np.float32)
    again = resolved.resolve(**FIT)
    assert jax.tree.structure(again) == jax.tree.structure(resolved)
    for a, b in zip(jax.tree.leaves(again), leaves, strict=True):
        np.testing.assert_array_equal(a, b)


@policies
def test_deterministic_takes_as_many_experts(policy):
    """Prompt tokens are routed without noise into a result of the same shape."""
    plain = policy.resolve(**FIT).deterministic(L)
    assert isinstance(plain, TopK)
    assert not plain.noisy
    assert plain.width == policy.resolve(**FIT).width


@policies
def test_round_trip_through_the_tree(policy):
    """A policy passes through jit, donation and checkpoints as its leaves."""
    resolved = policy.resolve(**FIT)
    leaves, structure = jax.tree.flatten(resolved)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(policy)
    assert again.width == resolved.width
    for a, b in zip(jax.tree.leaves(again), leaves, strict=True):
        assert a is b
    assert hash(structure) == hash(jax.tree.structure(again))


def test_every_layer_can_have_its_own_values():
    """A sweep over depth: layer l must be chosen with the l-th values."""
    ranking = jnp.asarray(np.random.default_rng(0).normal(size=(20, E)), jnp.float32)
    noise = jnp.asarray(np.random.default_rng(1).gumbel(size=(20, E)), jnp.float32)
    keep, reach, tau = [4, 0, 2], [4, 16, 8], [1.0, 0.5, 2.0]
    together = ExpertSample(np.array(keep), np.array(reach), jnp.array(tau))
    together = together.resolve(**FIT)
    for l in range(L):
        alone = ExpertSample(keep[l], reach[l], tau[l]).resolve(**FIT)
        np.testing.assert_array_equal(
            choose_experts(together.at_layer(l), ranking, noise),
            choose_experts(alone.at_layer(0), ranking, noise),
        )
    counts = TopK(np.array([1, 4, 2])).resolve(**FIT)
    for l, count in enumerate([1, 4, 2]):
        chosen = choose_experts(counts.at_layer(l), ranking, None)
        assert ((np.asarray(chosen) >= 0).sum(axis=1) == count).all()


# -- one compilation -----------------------------------------------------------------

SWEEPS = {
    "ExpertSample": [
        ExpertSample(),
        ExpertSample(2, 9, 0.3),
        ExpertSample(0, E, jnp.float32(2.0)),
        ExpertSample(np.array([1, 2, 3]), np.int64(7), np.array([0.0, 1.0, 2.0])),
        ExpertSample(tau=jnp.array([1, 2, 3])),
        ExpertSample(k_keep=2.0, k=K),
    ],
    "GumbelTopK": [GumbelTopK(), GumbelTopK(2), GumbelTopK(np.array([0.1, 0.2, 0.3]))],
    "AdaptiveHead": [AdaptiveHead(), AdaptiveHead(0, 5, 3), AdaptiveHead(jnp.ones(3))],
    "TopK": [TopK(), TopK(1), TopK(np.array([1, 2, 4])), TopK(3.0), TopK(jnp.int32(2))],
    "TopP": [TopP(), TopP(0.9, k_min=2), TopP(np.array([0.1, 0.5, 1]), k_max=K)],
    "Dropout": [Dropout(), Dropout(0), Dropout(np.array([0.0, 0.5, 1.0]))],
}


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_a_sweep_traces_once(sweep):
    """Scalar, array or per layer, and any value: one compiled program (promise 7)."""
    traces = []

    @jax.jit
    def choose(policy, ranking, noise):
        traces.append(policy)
        return choose_experts(policy.at_layer(1), ranking, noise)

    for policy in sweep:
        choose(policy.resolve(**FIT), jnp.ones((2, E)), jnp.zeros((2, E)))
    assert len(traces) == 1


def test_traced_values_resolve_inside_jit():
    """A user's own jit may compute tau and k_keep; they cannot be looked at there."""
    traces = []

    @jax.jit
    def choose(keep, reach, tau, ranking, noise):
        traces.append(tau)
        policy = ExpertSample(keep, reach, tau).resolve(**FIT)
        return choose_experts(policy.at_layer(0), ranking, noise)

    ranking = jnp.asarray(np.random.default_rng(0).normal(size=(9, E)), jnp.float32)
    noise = jnp.asarray(np.random.default_rng(1).gumbel(size=(9, E)), jnp.float32)
    for keep, reach, tau in [(3, 16, 1.0), (0, 9, 0.5), (99, 99, -1.0)]:
        found = choose(keep, reach, tau, ranking, noise)
        if keep <= K:
            eager = ExpertSample(keep, reach, tau).resolve(**FIT).at_layer(0)
            expected = choose_experts(eager, ranking, noise)
            np.testing.assert_array_equal(found, expected)
    assert len(traces) == 1


def test_an_unresolved_policy_is_a_pytree_argument_too():
    """The device function takes policies as users write them, resolved inside."""

    @jax.jit
    def width_and_tau(policy):
        resolved = policy.resolve(**FIT)
        return resolved.width, resolved.tau

    width, tau = width_and_tau(ExpertSample(tau=0.25))
    assert width == K
    np.testing.assert_array_equal(tau, [0.25] * L)


# -- values that are refused ---------------------------------------------------------

WRONG = [
    (ExpertSample, {"k_keep": -1}, "k_keep"),
    (ExpertSample, {"k_keep": K + 1}, "k_keep"),
    (ExpertSample, {"k_keep": 2.5}, "k_keep"),
    (ExpertSample, {"k_keep": float("nan")}, "k_keep"),
    (ExpertSample, {"k_keep": float("inf")}, "k_keep"),
    (ExpertSample, {"k_keep": 2**32 + 1}, "k_keep"),
    (ExpertSample, {"k_keep": np.array([1, 2, 5])}, "k_keep.*layer 2"),
    (ExpertSample, {"k_keep": np.array([1, 2])}, r"k_keep.*shape \(2,\)"),
    (ExpertSample, {"k_keep": np.ones((L, 1))}, "k_keep.*shape"),
    (ExpertSample, {"r": K - 1}, "r must"),
    (ExpertSample, {"r": E + 1}, "r must"),
    (ExpertSample, {"r": 6.5}, "r must"),
    (ExpertSample, {"tau": -0.1}, "tau"),
    (ExpertSample, {"tau": float("nan")}, "tau"),
    (ExpertSample, {"tau": float("inf")}, "tau"),
    (ExpertSample, {"tau": 1e300}, "tau"),
    (ExpertSample, {"tau": jnp.array([1.0, -1.0, 1.0])}, "tau.*layer 1"),
    (ExpertSample, {"tau": np.zeros(L + 1)}, "tau.*shape"),
    (ExpertSample, {"k": 0}, "k must"),
    (ExpertSample, {"k": E + 1}, "k must"),
    (ExpertSample, {"k": 2.5}, "k must"),
    (GumbelTopK, {"tau": -1.0}, "tau"),
    (GumbelTopK, {"tau": np.array([[1.0]])}, "tau"),
    (GumbelTopK, {"k": E + 1}, "k must"),
    (AdaptiveHead, {"mass": -0.01}, "mass"),
    (AdaptiveHead, {"mass": 1.01}, "mass"),
    (AdaptiveHead, {"mass": float("nan")}, "mass"),
    (AdaptiveHead, {"r": K - 1}, "r must"),
    (AdaptiveHead, {"r": E + 1}, "r must"),
    (AdaptiveHead, {"tau": float("-inf")}, "tau"),
    (AdaptiveHead, {"k": -1}, "k must"),
    (TopK, {"k": 0}, "k must"),
    (TopK, {"k": -1}, "k must"),
    (TopK, {"k": E + 1}, "k must"),
    (TopK, {"k": 1.5}, "k must"),
    (TopK, {"k": np.array([1, 2, E + 1])}, "k must.*layer 2"),
    (TopK, {"k": 6, "places": 4}, "places"),
    (TopK, {"places": E + 1}, "places"),
    (TopK, {"places": 0}, "places"),
    (TopP, {"mass": 1.1}, "mass"),
    (TopP, {"k_min": 0}, "k_min"),
    (TopP, {"k_min": K + 1}, r"k_min must be 1\.\.4, found 5"),
    (TopP, {"k_max": E + 1}, "k_max"),
    (TopP, {"k_min": 3, "k_max": np.array([4, 3, 2])}, r"k_min.* 1\.\.2.*layer 2"),
    (Dropout, {"q": -0.1}, "q must"),
    (Dropout, {"q": 1.1}, "q must"),
    (Dropout, {"q": float("nan")}, "q must"),
    (Dropout, {"k": E + 1}, "k must"),
]


@pytest.mark.parametrize(
    ("cls", "values", "says"), WRONG, ids=[f"{c.__name__} {v}" for c, v, _ in WRONG]
)
def test_bad_values_raise(cls, values, says, untyped):
    """Noise nobody asked for, or a crash deep in XLA, where a value does not fit."""
    with pytest.raises(ValueError, match=says):
        _make(cls, **values).resolve(**FIT)


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (ExpertSample, "k_keep", -1),
        (ExpertSample, "k_keep", K + 1),
        (ExpertSample, "r", K - 1),
        (ExpertSample, "tau", -1.0),
        (AdaptiveHead, "mass", 1.5),
        (GumbelTopK, "tau", float("nan")),
        (TopK, "k", 0),
    ],
)
def test_bad_values_do_not_raise_while_traced(cls, name, value):
    """A traced value cannot be looked at; trying would break every user's jit."""
    resolve = lambda v: getattr(_make(cls, **{name: v}).resolve(**FIT), name)  # noqa: E731
    assert jax.jit(resolve)(value).shape == (L,)


@pytest.mark.parametrize("value", ["2", 1 + 2j, None])
def test_what_is_no_number_is_refused(value, untyped):
    """A string from a command line must not reach the arithmetic."""
    with pytest.raises((TypeError, ValueError)):
        _make(GumbelTopK, tau=value).resolve(**FIT)


@policies
def test_using_a_policy_too_early_says_what_to_do(policy):
    """`choose` before `resolve` has no k; the error names the missing step."""
    with pytest.raises(ValueError, match="resolve"):
        _ = policy.width


# -- with a model --------------------------------------------------------------------


def _config(experts: int = E) -> ModelConfig:
    mixer = AttentionConfig(2, 1, 4)
    mixture = (
        MoEConfig(experts, K, 8, SoftmaxScores(True)) if experts else DenseConfig(8)
    )
    layers = (LayerConfig(mixer, mixture), LayerConfig(mixer, DenseConfig(8)))
    return ModelConfig("test", 10, 8, layers, NormConfig(), True, 32)


@policies
def test_policy_for_a_model(policy):
    """Dense layers are counted, so that a per-layer value stands at its layer."""
    resolved = for_model(policy, _config())
    assert resolved.width == K
    assert all(leaf.shape == (2,) for leaf in jax.tree.leaves(resolved))


@policies
def test_policy_for_a_model_without_experts(policy):
    """A dense model has nothing to choose; every policy must still be accepted."""
    resolved = for_model(policy, _config(experts=0))
    assert not resolved.noisy
    assert resolved.width == 1


@pytest.mark.parametrize("wrong", [None, "topk", TopK, 8])
def test_what_is_no_policy_is_refused(wrong, untyped):
    """`policy=TopK` (the class) is an easy slip."""
    with pytest.raises(TypeError, match="ExpertSample()"):
        for_model(wrong, _config())


@pytree()
@dataclass(frozen=True)
class LastExperts(Policy):
    """A user's own: the experts of highest index, moved down by `offset`."""

    noisy = False
    offset: Any = 0

    @property
    def width(self):
        return 2

    def resolve(self, *, k, num_experts, num_layers):
        return LastExperts(np.full(num_layers, self.offset, np.int32))

    def choose(self, ranking, noise):
        return ranking.shape[0] - 1 - jnp.arange(2) - self.offset


def test_a_policy_of_ones_own():
    """`Policy` is public: a subclass works wherever the built-in ones do."""
    policy = for_model(LastExperts(3), _config())
    chosen = jax.jit(lambda p, x: choose_experts(p.at_layer(1), x, None))(
        policy, jnp.zeros((5, E))
    )
    np.testing.assert_array_equal(chosen, [[E - 4, E - 5]] * 5)
    assert policy.deterministic(2).width == 2
    row = jnp.zeros(E)
    np.testing.assert_array_equal(
        policy.at_layer(0).select(jax.random.key(0), row), [E - 4, E - 5]
    )


def test_forced_and_inactive_rows():
    """Replay takes recorded experts; a slot at rest must read none."""
    policy = TopK().resolve(**FIT).at_layer(0)
    ranking = jnp.asarray(np.random.default_rng(0).normal(size=(3, E)), jnp.float32)
    forced = jnp.array([[3, 1, 2, 0], [-1, -1, -1, -1], [5, 6, 7, -1]])
    active = jnp.array([True, True, False])
    free = choose_experts(policy, ranking, None)
    chosen = choose_experts(policy, ranking, None, forced=forced, active=active)
    np.testing.assert_array_equal(chosen[0], forced[0])
    np.testing.assert_array_equal(chosen[1], free[1])
    np.testing.assert_array_equal(chosen[2], [-1] * K)
