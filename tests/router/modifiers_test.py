"""Policies that change another: bias and bans, and noise at uncertain routers alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe.decode.inputs import check_route_law
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.modifiers import MOST_BIAS, Biased, Gated
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
from jaxmoe.router.routing import choose_experts, route_logprobs
from jaxmoe.router.scores import Groups, SoftmaxScores
from tests.tiny import SHAPES, tiny_model

E, K, L, N = 16, 4, 3, 64
FIT = {"k": K, "num_experts": E, "num_layers": L}
RANKING = jnp.asarray(np.random.default_rng(0).normal(size=(N, E)) * 2, jnp.float32)
NOISE = jnp.asarray(np.random.default_rng(1).gumbel(size=(N, E)), jnp.float32)
BIAS = np.random.default_rng(2).normal(size=(L, E)).astype(np.float32)
HOT = ExpertSample(1, E, 3.0)
INNER = [TopK(), TopP(0.6), ExpertSample(), GumbelTopK(), AdaptiveHead(), Dropout(0.4)]
inner = pytest.mark.parametrize("policy", INNER, ids=lambda p: type(p).__name__)


@jax.jit
def _choose(policy, ranking, noise):
    return choose_experts(policy, ranking, noise)


def _experts(policy: Policy, ranking=RANKING, noise=NOISE, layer: int = 1):
    return np.asarray(_choose(policy.resolve(**FIT).at_layer(layer), ranking, noise))


@jax.jit
def _law(policy, ranking, experts):
    return route_logprobs(policy, ranking, experts)


# -- bias ----------------------------------------------------------------------------


@inner
def test_no_bias_changes_nothing(policy):
    """What is measured of a bias would not be the bias alone."""
    groups = SoftmaxScores(True, groups=Groups(4, 2, 1)).ranking(RANKING)
    for ranking in (RANKING, jnp.round(RANKING), groups):
        expected = _experts(policy, ranking)
        found = _experts(Biased(policy, np.zeros(E)), ranking)
        np.testing.assert_array_equal(found, expected)


@inner
def test_a_bias_chooses_as_the_policy_does_from_the_sum(policy):
    """NumPy reference: each layer's own bias is added to the ranking."""
    for layer in range(L):
        shifted = jnp.asarray(np.asarray(RANKING) + BIAS[layer])
        found = _experts(Biased(policy, BIAS), layer=layer)
        np.testing.assert_array_equal(found, _experts(policy, shifted, layer=layer))


@inner
@pytest.mark.parametrize("grouped", [False, True])
def test_a_banned_expert_never_computes(policy, grouped):
    """Noise, or a choice of few experts, would bring one back."""
    bias = np.zeros(E, np.float32)
    bias[[0, 1, 2, 7, 9]] = -np.inf
    rule = SoftmaxScores(True, groups=Groups(4, 1, 1) if grouped else None)
    ranking = rule.ranking(RANKING)
    found = _experts(Biased(policy, bias), ranking)
    assert not np.isin(found, [0, 1, 2, 7, 9]).any()
    allowed = np.asarray(ranking) + bias > -np.inf
    for row, left in zip(found, allowed, strict=True):
        chosen = row[row >= 0]
        assert len(set(chosen)) == len(chosen)
        assert left[chosen].all()  # groups that the rule left out stay out
        assert (row[len(chosen) :] == -1).all()
        assert chosen.size or not left.any()
        if isinstance(policy, ExpertSample | GumbelTopK | AdaptiveHead):
            assert len(chosen) == min(K, left.sum())


def test_a_large_bias_puts_experts_first_and_last():
    """Steering as SteerMoE does it."""
    bias = np.zeros(E, np.float32)
    bias[3], bias[5] = MOST_BIAS, -MOST_BIAS
    found = _experts(Biased(ExpertSample(), bias))
    assert (found[:, 0] == 3).all()
    assert not (found == 5).any()


def test_prompts_are_biased_too():
    """A banned expert would still compute the prompt."""
    plain = Biased(HOT, BIAS).resolve(**FIT).deterministic(L)
    assert not plain.noisy
    np.testing.assert_array_equal(
        _choose(plain.at_layer(2), RANKING, None),
        _experts(TopK(), RANKING + BIAS[2:3]),
    )


@pytest.mark.parametrize(
    ("bias", "says"),
    [
        (np.zeros(E + 1), r"shape \(17,\)"),
        (np.zeros((L + 1, E)), r"shape \(4, 16\)"),
        (np.full(E, np.nan), "found nan"),
        (np.full(E, np.inf), "found inf"),
        (np.full(E, 2 * MOST_BIAS), "found 20000"),
    ],
)
def test_biases_that_do_not_fit_are_refused(bias, says):
    """An index into too few layers, or experts without an order."""
    with pytest.raises(ValueError, match=says):
        Biased(TopK(), bias).resolve(**FIT)


def _leaving(*counts: int) -> np.ndarray:
    """A bias that bans all but so many experts of each layer."""
    return np.where(np.arange(E) < np.array(counts)[:, None], 0, -np.inf)


def test_as_many_experts_are_left_as_are_chosen():
    """Bans that leave enough would be refused: of the places, or in a dense layer."""
    config = tiny_model().config
    assert config.moe_layers == (1,)
    for policy in (
        Biased(TopK(), _leaving(0, K)),
        Biased(TopK(1), _leaving(0, 1)),
        Biased(TopK(np.array([K, 2])), _leaving(0, 2)),
        Biased(Biased(TopP(k_max=2), np.zeros(E)), _leaving(0, 2)),
        Biased(Gated(HOT, threshold=1.0), _leaving(0, K)),
    ):
        for_model(policy, config)
    for policy in (
        Biased(TopK(2), _leaving(K, 1)),
        Biased(Biased(ExpertSample(k=2), _leaving(K, 1)), np.zeros(E)),
        Gated(Biased(ExpertSample(k=2), _leaving(K, 1)), threshold=1.0),
        RouteEnsemble(Biased(Dropout(k=2), _leaving(K, 1))),
    ):
        with pytest.raises(ValueError, match="leave 2 .* found 1 in layer 1"):
            for_model(policy, config, several=True)


# -- gates ---------------------------------------------------------------------------


def _uncertain(by: str, threshold: float) -> np.ndarray:
    """NumPy reference: the rows at which there is noise."""
    rows = np.asarray(RANKING, np.float64)
    if by == "margin":
        best = -np.sort(-rows, axis=1)
        return best[:, K - 1] - best[:, K] < threshold
    p = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    return -(p * np.log(p)).sum(axis=1) > threshold


@pytest.mark.parametrize("policy", [HOT, GumbelTopK(2.0), Dropout(0.5)], ids=repr)
@pytest.mark.parametrize(("by", "threshold"), [("entropy", 1.6), ("margin", 0.3)])
def test_noise_at_uncertain_routers_alone(by, threshold, policy):
    """Certain routers would be noisy, or uncertain ones not."""
    uncertain = _uncertain(by, threshold)
    assert 0.2 < uncertain.mean() < 0.8
    expected = np.where(uncertain[:, None], _experts(policy), _experts(TopK()))
    found = _experts(Gated(policy, by=by, threshold=threshold))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("by", "threshold", "same"),
    [
        ("entropy", np.log(E) + 1e-3, TopK()),
        ("margin", 0.0, TopK()),
        ("entropy", 0.0, HOT),
        ("margin", 1e9, HOT),
    ],
)
def test_gates_that_are_always_open_or_shut(by, threshold, same):
    """Promise 3: the limits are the policies themselves."""
    for ranking in (RANKING, jnp.round(RANKING)):
        found = _experts(Gated(HOT, by=by, threshold=threshold), ranking)
        np.testing.assert_array_equal(found, _experts(same, ranking))


def test_a_gate_with_no_expert_left_out_is_shut():
    """There is no rank behind the last."""
    every = ExpertSample(k=E, k_keep=0)
    found = _experts(Gated(every, by="margin", threshold=9.0))
    np.testing.assert_array_equal(found, _experts(TopK(E)))


def test_masked_experts_leave_a_number():
    """0 log 0, and -inf less -inf."""
    one = {"threshold": 0.5}
    for by in ("entropy", "margin"):
        gate = Gated(HOT, by=by, **one).resolve(**FIT).at_layer(0)
        certain = jnp.full(E, -jnp.inf).at[3].set(0.0)
        assert not gate.uncertain(certain)
    flat = jnp.where(jnp.arange(E) < 2, 0.0, -jnp.inf)
    assert Gated(HOT, **one).resolve(**FIT).at_layer(0).uncertain(flat)


def test_gates_that_do_not_fit_are_refused(untyped):
    """Another spelling would be taken for the margin."""
    with pytest.raises(ValueError, match="found 'norm'"):
        Gated(HOT, by="norm", threshold=1.0).resolve(**FIT)  # pyright: ignore
    with pytest.raises(ValueError, match="noise.*found TopK"):
        Gated(TopK(2), threshold=1.0).resolve(**FIT)
    with pytest.raises(ValueError, match="threshold"):
        Gated(HOT, threshold=-1.0).resolve(**FIT)


# -- both ----------------------------------------------------------------------------

MODIFIED = [
    Biased(HOT, BIAS),
    Gated(Dropout(0.4), threshold=1.6),
    Gated(HOT, by="margin", threshold=0.3),
    Gated(Biased(GumbelTopK(), BIAS), threshold=1.6),
    # Of one ranking below it leaves 3, and bans whom ties would put behind them.
    Biased(Gated(HOT, threshold=1.6), np.where(abs(np.arange(E) - 7) > 4, 0, -np.inf)),
]
modified = pytest.mark.parametrize("policy", MODIFIED, ids=range(len(MODIFIED)))


@pytest.mark.thorough
@modified
def test_the_law_is_how_often_sets_are_chosen(policy):
    """Recorded log-probabilities would be of another policy."""
    one, rows = policy.resolve(**FIT).at_layer(1), 4000
    noise = np.random.default_rng(3).gumbel(size=(rows, E)).astype(np.float32)
    for ranking in (RANKING[0], RANKING[1].at[3:].set(-jnp.inf)):
        wide = jnp.broadcast_to(ranking, (rows, E))
        chosen = _choose(one, wide, jnp.asarray(noise))
        each = np.exp(np.asarray(_law(one, wide, chosen)))
        _, first, counts = np.unique(
            np.asarray(chosen), axis=0, return_index=True, return_counts=True
        )
        law = each[first]
        spread = np.sqrt(rows * law * (1 - law))
        assert (abs(counts - rows * law) <= 5.5 * spread + 3).all()
        assert 0.9 < law.sum() < 1 + 1e-4


@modified
def test_resolved_twice_is_the_same(policy):
    """Calls would compile the step again."""
    once = policy.resolve(**FIT)
    again = once.resolve(**FIT)
    assert jax.tree.structure(once) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(again), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_law_that_is_not_there_is_refused():
    """A crash while tracing, though the policy around it has one."""

    class Own(ExpertSample):
        log_probability = Policy.log_probability

    none = Biased(Own(), np.zeros(E)), Gated(Own(), threshold=1.0)
    for policy in (*none, Biased(Dropout(), np.zeros(E))):
        assert not policy.has_log_probability
    check_route_law(Biased(HOT, BIAS).resolve(**FIT))


@pytest.mark.thorough
@pytest.mark.parametrize(
    "policy",
    [
        Gated(Biased(ExpertSample(tau=3.0), np.arange(16) % 3), threshold=2.0),
        pytest.param(TopP(0.4), marks=pytest.mark.slow),
        pytest.param(Dropout(0.3), marks=pytest.mark.slow),
    ],
    ids=["gated, biased", "TopP", "Dropout"],
)
def test_answers_are_functions_of_their_keys(policy):
    """Another answer beside it would change one, or its routes not give it again."""
    model, prompt = tiny_model(), np.arange(20)
    many = jaxmoe.sample(model, prompt, key=3, n=4, policy=policy, **SHAPES)
    alone = jaxmoe.sample(model, prompt, key=3, samples=[2], policy=policy, **SHAPES)
    length = many.lengths[2]
    np.testing.assert_array_equal(alone.tokens[0, :length], many.tokens[2, :length])
    np.testing.assert_array_equal(alone.logprobs[0, :length], many.logprobs[2, :length])
    # The prompt, which is not replayed, is biased too.
    inner = getattr(policy, "policy", policy)
    plain = replace(inner, policy=TopK()) if isinstance(inner, Biased) else TopK()
    again = jaxmoe.sample(
        model, prompt, key=3, n=4, policy=plain, routes=many.routes, **SHAPES
    )
    np.testing.assert_array_equal(again.tokens, many.tokens)
    np.testing.assert_allclose(again.logprobs, many.logprobs, atol=1e-5)


@pytest.mark.slow
def test_answers_of_a_list_are_those_of_their_own_policies():
    """A slot would forget a bias, or its prompt, or what is beside it change it."""
    bias = np.where(np.arange(E) % 5 == 2, -np.inf, np.arange(E) % 3)
    policies = [
        ExpertSample(tau=3.0),
        Biased(ExpertSample(tau=3.0), bias),
        Gated(Biased(GumbelTopK(), bias), threshold=1.8),
        Dropout(0.4),
        Biased(Gated(Dropout(0.4), by="margin", threshold=0.5), bias),
        TopK(2),
    ]
    given = {**SHAPES, "key": 3, "n": len(policies)}
    found = jaxmoe.sample(tiny_model(), np.arange(20), policy=policies, **given)
    plain = jaxmoe.sample(tiny_model(), np.arange(20), policy=policies[0], **given)
    np.testing.assert_array_equal(found.logprobs[0], plain.logprobs[0])
    for i, policy in enumerate(policies):
        given = {**SHAPES, "key": 3, "samples": [i], "policy": policy}
        alone = jaxmoe.sample(tiny_model(), np.arange(20), **given)
        length = found.lengths[i]
        for name in ("tokens", "logprobs", "routes"):
            expected = getattr(alone, name)[0, :length]
            np.testing.assert_array_equal(getattr(found, name)[i, :length], expected)


@pytest.mark.slow
def test_recorded_log_probabilities_are_those_of_the_policy():
    """They would be of the ranking before the bias."""
    policy = Gated(Biased(ExpertSample(tau=3.0), np.arange(16) % 3), threshold=2.0)
    options = {**SHAPES, "key": 3, "n": 4, "policy": policy}
    found = jaxmoe.sample(
        tiny_model(), np.arange(20), return_route_logprobs=True, **options
    ).route_logprobs
    assert found is not None
    assert np.isfinite(found).all()
    assert (found < 0).any()
