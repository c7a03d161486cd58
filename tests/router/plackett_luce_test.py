"""Log-probabilities of routes, against sums over all orders and sets in float64."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.router.plackett_luce import MOST_DRAWN
from jaxmoe.router.policies import AdaptiveHead, ExpertSample, GumbelTopK, Policy, TopK
from jaxmoe.router.routing import choose_experts, route_logprobs
from tests.chi_square import plackett_luce_sets

E, K = 8, 4
FIT = {"k": K, "num_experts": E, "num_layers": 1}
LOGITS = np.array([0.3, 2.0, -0.4, 1.1, 0.9, -1.5, 1.6, 0.0], np.float32)
RANKED = np.argsort(-LOGITS)
SETS = np.array(list(itertools.combinations(range(E), K)), np.int32)


@jax.jit
def _logprobs(policy, ranking, experts):
    return route_logprobs(policy.at_layer(0), ranking, experts)


def _found(policy: Policy, experts=SETS, logits=LOGITS) -> np.ndarray:
    """Log-probability of each set, in float64."""
    fit = FIT | {"num_experts": len(logits)}
    ranking = jnp.broadcast_to(
        jnp.asarray(logits, jnp.float32), (len(experts), len(logits))
    )
    found = _logprobs(policy.resolve(**fit), ranking, jnp.asarray(experts))
    assert found.dtype == jnp.float32
    return np.asarray(found, np.float64)


def _exact(head: int, r: int, tau: float, k: int = K) -> np.ndarray:
    """Log-probabilities of `SETS`, from all orders in which a tail can be drawn."""
    tail = RANKED[head:r]
    drawn = plackett_luce_sets(LOGITS[tail].astype(np.float64) / tau, k - head)
    table = {
        frozenset(RANKED[:head]) | frozenset(tail[list(places)]): p
        for places, p in drawn.items()
    }
    chances = [table.get(frozenset(experts), 0.0) for experts in SETS]
    return np.log(chances, out=np.full(len(SETS), -np.inf), where=np.array(chances) > 0)


def _head_of(mass: float) -> int:
    probabilities = np.sort(np.exp(LOGITS) / np.exp(LOGITS).sum())[::-1]
    return int(np.argmax(np.cumsum(probabilities) >= mass)) + 1


CASES = {
    "head of 1": (ExpertSample(1, 6), (1, 6, 1.0)),
    "head of 1, cool": (ExpertSample(1, 7, 0.3), (1, 7, 0.3)),
    "the default": (ExpertSample(), (3, 8, 1.0)),
    "no head": (ExpertSample(0, 5, 2.0), (0, 5, 2.0)),
    "one is left out": (ExpertSample(0, K + 1, 0.7), (0, K + 1, 0.7)),
    "GumbelTopK": (GumbelTopK(), (0, E, 1.0)),
    "GumbelTopK, hot": (GumbelTopK(40.0), (0, E, 40.0)),
    "AdaptiveHead, short": (AdaptiveHead(0.1, 6), (1, 6, 1.0)),
    "AdaptiveHead, longer": (AdaptiveHead(0.5, 7, 1.3), (_head_of(0.5), 7, 1.3)),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cases
def test_log_probabilities_are_the_sum_over_all_orders(case):
    """The law of arXiv 1903.06059; sets that cannot be drawn are -inf."""
    policy, law = case
    found, exact = _found(policy), _exact(*law)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(exact))
    np.testing.assert_allclose(found, exact, atol=2e-6, rtol=2e-6)


@cases
def test_probabilities_of_all_sets_sum_to_1(case):
    """Some set is chosen always."""
    assert np.exp(_found(case[0])).sum() == pytest.approx(1, abs=2e-6)


@cases
def test_order_of_the_experts_does_not_matter(case):
    """It is the probability of a set: no order in which it was drawn is recorded."""
    order = np.random.default_rng(0).permuted(SETS, axis=1)
    np.testing.assert_allclose(
        _found(case[0], order), _found(case[0]), atol=1e-6, rtol=1e-6
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    "k", [1, 8, MOST_DRAWN, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 10))]
)
def test_many_drawn(k):
    """All k drawn of k + 2: the sum over pairs that stay, by inclusion-exclusion.

    P(A and B are the last two) is found without orders of the k: A and B stay exactly
    if the least of the others' arrival times is ... all others arrive before both.
    With rates w: P = sum over T in D of (-1)^|T| W / (W + w(T)), W the rate of A, B.
    """
    logits = np.random.default_rng(k).normal(size=k + 2).astype(np.float32)
    rates = np.exp(logits.astype(np.float64))
    fit = {"k": k, "num_experts": k + 2, "num_layers": 1}
    pairs = list(itertools.combinations(range(k + 2), 2))
    sets = np.array([np.delete(np.arange(k + 2), pair) for pair in pairs], np.int32)
    exact = []
    for pair in pairs:
        rest = rates[list(pair)].sum()
        sums = np.zeros(1)
        signs = np.ones(1)
        for rate in np.delete(rates, pair):
            sums = np.concatenate([sums, sums + rate])
            signs = np.concatenate([signs, -signs])
        exact.append(math.fsum(signs * rest / (rest + sums)))
    ranking = jnp.broadcast_to(logits, (len(sets), k + 2))
    found = _logprobs(GumbelTopK().resolve(**fit), ranking, jnp.asarray(sets))
    np.testing.assert_allclose(found, np.log(exact), atol=1e-5, rtol=1e-5)


def test_more_drawn_than_the_limit_is_refused():
    """2^k states for each token do not fit; the error says the limit."""
    k = MOST_DRAWN + 1
    policy = GumbelTopK().resolve(k=k, num_experts=k + 3, num_layers=1)
    with pytest.raises(ValueError, match=rf"{MOST_DRAWN} .*found {k}"):
        _logprobs(policy, jnp.zeros((1, k + 3)), jnp.arange(k)[None])


# -- certain and impossible sets -----------------------------------------------------

CERTAIN = {
    "TopK": TopK(),
    "k_keep = k": ExpertSample(k_keep=K, tau=9.0),
    "r = k": ExpertSample(k_keep=0, r=K, tau=9.0),
    "ExpertSample, tau = 0": ExpertSample(k_keep=1, tau=0.0),
    "GumbelTopK, tau = 0": GumbelTopK(0.0),
    "AdaptiveHead, tau = 0": AdaptiveHead(tau=0.0),
    "AdaptiveHead, mass = 1": AdaptiveHead(1.0, tau=9.0),
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("policy", CERTAIN.values(), ids=CERTAIN)
def test_a_certain_set_has_probability_1(policy, tied):
    """Exactly 0 nats, and -inf for all other sets, also among equals."""
    logits = np.round(LOGITS) if tied else LOGITS
    best = np.sort(np.argsort(-logits, kind="stable")[:K])
    expected = np.where((best == SETS).all(axis=1), 0.0, -np.inf)
    np.testing.assert_array_equal(_found(policy, SETS, logits), expected)


def test_fewer_experts():
    """The k best and empty places, in any order."""
    best = RANKED[:2].tolist()
    sets = [[*best, -1, -1], [-1, best[1], -1, best[0]], [best[0], RANKED[2], -1, -1]]
    sets += [RANKED[:4], [best[0], -1, -1, -1], [-1] * 4]
    found = _found(TopK(2), np.array(sets))
    np.testing.assert_array_equal(found, [0, 0, *[-np.inf] * 4])


@pytest.mark.thorough
@pytest.mark.parametrize(
    "policy", [TopK(), ExpertSample(1), GumbelTopK(), AdaptiveHead()], ids=repr
)
def test_what_is_no_set_of_k_experts_is_impossible(policy):
    """Too few, the same twice, or an expert that does not exist."""
    a, b, c, d = RANKED[:4].tolist()
    sets = [[a, b, c, -1], [a, b, c, c], [a, a, b, c], [a, b, c, E], [-1] * 4]
    assert (_found(policy, np.array(sets)) == -np.inf).all()
    assert np.isfinite(_found(policy, np.array([[d, b, a, c]]))).all()


def test_masked_experts_come_last_in_rank_order():
    """Logits of -inf have no weight: one is taken only where nothing else is left."""
    masked = LOGITS.copy()
    masked[RANKED[3:]] = -np.inf  # three are left, for four places
    found = _found(GumbelTopK(), SETS, masked)
    expected = np.sort([*RANKED[:3], np.sort(RANKED[3:])[0]])
    np.testing.assert_array_equal(
        found, np.where((expected == SETS).all(axis=1), 0.0, -np.inf)
    )
    masked = LOGITS.copy()
    masked[RANKED[5:]] = -np.inf  # five are left
    found = _found(GumbelTopK(), SETS, masked)
    np.testing.assert_array_equal(
        np.isfinite(found), ~np.isin(SETS, RANKED[5:]).any(axis=1)
    )
    assert np.exp(found).sum() == pytest.approx(1, abs=2e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "policy",
    [
        ExpertSample(0, E, 1e-3),
        ExpertSample(0, E, 1e-30),
        ExpertSample(0, E, 3e38),
        GumbelTopK(0.01),
        AdaptiveHead(0.2, tau=1e-3),
    ],
    ids=repr,
)
def test_what_is_drawn_is_possible(policy):
    """-inf or nan for a set that was drawn would spoil every mean of it."""
    rng = np.random.default_rng(3)
    for scale in (1e-3, 1.0, 300.0):
        logits = jnp.asarray(rng.normal(size=(200, E)) * scale, jnp.float32)
        logits = jnp.where(jnp.asarray(rng.random((200, E))) < 0.1, 0.0, logits)
        noise = jnp.asarray(rng.gumbel(size=(200, E)), jnp.float32)
        resolved = policy.resolve(**FIT)
        experts = choose_experts(resolved.at_layer(0), logits, noise)
        found = np.asarray(_logprobs(resolved, logits, experts))
        assert np.isfinite(found).all()
        assert (found <= 0).all()


def test_sets_with_nearly_all_the_mass_keep_their_digits():
    """Z - W(S) by subtraction would leave rounding where the rest is small."""
    logits = np.array([30.0, 29.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0], np.float32)
    weights = np.exp(logits[2:].astype(np.float64))
    pairs = plackett_luce_sets(logits[2:].astype(np.float64), 2)
    for pair, probability in pairs.items():
        experts = np.array([[0, 1, *(2 + np.array(sorted(pair)))]], np.int32)
        found = _found(GumbelTopK(), experts, logits)
        # The first two are drawn first but for e^-28.
        assert found[0] == pytest.approx(np.log(probability), abs=1e-6)
    # With one of them left out, nearly all the mass is left after each draw.
    without = np.array([[0, 2, 3, 4]], np.int32)
    exact = math.log(6) - 0 + np.log(weights[:3]).sum() - 3 * 29.0
    assert _found(GumbelTopK(), without, logits)[0] == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_scores_far_from_0(offset):
    """Only differences count; their quotient by tau must not cost digits."""
    logits = (np.round(LOGITS * 64) / 64).astype(np.float32)
    np.testing.assert_allclose(
        _found(GumbelTopK(0.25), SETS, logits + np.float32(offset)),
        _found(GumbelTopK(0.25), SETS, logits),
        rtol=1e-5,
    )


def test_a_small_tau_keeps_the_ratio_of_near_equals():
    """Far below the best, two near-equals share as their small difference says."""
    logits = np.array([0, 0, 0, -4e3, -4e3 - 1 / 1024, *[-8e3] * 3], np.float32)
    sets = np.array([[0, 1, 2, 3], [0, 1, 2, 4]], np.int32)
    found = _found(GumbelTopK(1 / 1024), sets, logits)
    np.testing.assert_allclose(
        found, [-np.log1p(np.exp(-1)), -np.log1p(np.exp(1))], atol=1e-6
    )
