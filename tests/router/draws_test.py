"""Whether drawn experts have the distribution that the method promises.

All tests share one table of noise, drawn through the key schedule: S samples at T
positions in L layers, that is 40,000 draws.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.random.keys import position_key, route_noise, sample_key, token_key
from jaxmoe.router.policies import AdaptiveHead, ExpertSample, GumbelTopK, TopK
from jaxmoe.router.routing import choose_experts
from jaxmoe.router.scores import Groups, Scores, SigmoidScores, SoftmaxScores
from tests.chi_square import excess, plackett_luce_sets

S, T, L, E, K = 2, 10_000, 2, 8, 3
LOGITS = np.array([0.3, 2.0, -0.4, 1.1, 0.9, -1.5, 1.6, 0.0], np.float32)
RANKED = np.argsort(-LOGITS)


@pytest.fixture(scope="module")
def noise():
    """Gumbels [S, T, L, E] of the samples of one key."""

    def one(i, t):
        key = position_key(sample_key(jax.random.key(2024), i), t)
        return route_noise(key, L, E)

    grid = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return jax.jit(grid)(jnp.arange(S), jnp.arange(T))


@jax.jit
def _choose(policy, noise):
    ranking = jnp.broadcast_to(LOGITS, noise.shape)
    return choose_experts(policy.at_layer(0), ranking, noise)


def _sets(policy, noise) -> np.ndarray:
    """The chosen set of each draw as bits, shaped as the noise is without E."""
    policy = policy.resolve(k=K, num_experts=E, num_layers=1)
    chosen = np.asarray(_choose(policy, noise.reshape(-1, E)))
    return (1 << chosen).sum(axis=1).reshape(noise.shape[:-1])


@lru_cache
def _exact(head: int, r: int, tau: float) -> np.ndarray:
    """Probability of each set as bits: the first ranks, and a tail of ranks < r."""
    tail = RANKED[head:r]
    table = np.zeros(1 << E)
    always = sum(1 << int(e) for e in RANKED[:head])
    sets = plackett_luce_sets(LOGITS[tail].astype(np.float64) / tau, K - head)
    for drawn, probability in sets.items():
        table[always + sum(1 << int(tail[j]) for j in drawn)] = probability
    return table


def _head_of(mass: float) -> int:
    probabilities = np.sort(np.exp(LOGITS) / np.exp(LOGITS).sum())[::-1]
    return int(np.argmax(np.cumsum(probabilities) >= mass)) + 1


CASES = {
    "ExpertSample, head of 1": (ExpertSample(1, 6), (1, 6, 1.0)),
    "ExpertSample, head of 1, cool": (ExpertSample(1, 7, 0.5), (1, 7, 0.5)),
    "ExpertSample, the default": (ExpertSample(), (2, 8, 1.0)),
    "ExpertSample, no head": (ExpertSample(0, 5, 2.0), (0, 5, 2.0)),
    "GumbelTopK": (GumbelTopK(), (0, 8, 1.0)),
    "GumbelTopK, hot": (GumbelTopK(1.7), (0, 8, 1.7)),
    "AdaptiveHead, short": (AdaptiveHead(0.1, 6), (1, 6, 1.0)),
    "AdaptiveHead, longer": (AdaptiveHead(0.5, 7, 1.3), (_head_of(0.5), 7, 1.3)),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_exact_probabilities_are_right():
    """The yardstick itself: sums to 1, and equals sampling one by one by hand."""
    assert _exact(1, 6, 1.0).sum() == pytest.approx(1)
    sets = plackett_luce_sets(np.log([1.0, 2.0, 3.0]), 2)
    assert sets[frozenset({0, 1})] == pytest.approx(1 / 6 * 2 / 5 + 2 / 6 * 1 / 4)
    assert _head_of(0.1) == 1
    assert _head_of(0.5) == 2


@cases
def test_sets_are_drawn_as_plackett_luce_says(case, noise):
    """A tail drawn otherwise (with replacement, by rank, past r) is not the paper's.

    And this test would see it: draws at another tau are rejected.
    """
    policy, (head, r, tau) = case
    counts = np.bincount(_sets(policy, noise).ravel(), minlength=1 << E)
    assert excess(counts, _exact(head, r, tau)) < 1
    assert excess(counts, _exact(head, r, tau * 1.1)) > 1.5
    assert excess(counts, _exact(head, r, tau / 1.1)) > 1.5


# -- every scoring rule ---------------------------------------------------------

BIAS = np.array([0.1, -0.35, 0.6, 0.2, 0.3, 0.15, -0.3, 0.4], np.float32)
"""The third group has the second best expert, the fourth the second best two."""

RULES: dict[str, Scores] = {
    "sigmoid": SigmoidScores(),
    "sigmoid, bias": SigmoidScores(choice_bias=True),
    "sigmoid, groups": SigmoidScores(choice_bias=True, groups=Groups(4, 2, 2)),
    "softmax, groups": SoftmaxScores(False, groups=Groups(4, 2, 1)),
    "softmax, bias": SoftmaxScores(True, 1e-12, choice_bias=True),
}
DRAWS = {
    "expert-sample": (ExpertSample(1, 4, 1.4), (1, 4, 1.4)),
    "gumbel": (GumbelTopK(0.8), (0, 8, 0.8)),
    "adaptive-head": (AdaptiveHead(0.01, 5), (1, 5, 1.0)),
}
rules = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def _exact_ranking(rule: Scores) -> np.ndarray:
    """As the rule says, in float64: log of what experts are ranked by, or -inf."""
    scores = np.exp(LOGITS.astype(np.float64))
    if isinstance(rule, SigmoidScores):
        scores = scores / (1 + scores)
    else:
        scores = scores / scores.sum()
    bias = BIAS.astype(np.float64) * rule.choice_bias
    c = scores + bias
    above = np.maximum(c - bias.mean(), 1e-6)
    ranking = np.log(above) - (above - (c - bias.mean())) / 1e-6
    if (groups := rule.groups) is not None:
        best = -np.sort(-c.reshape(groups.count, -1), axis=1)[:, : groups.best].sum(1)
        kept = np.argsort(-best, kind="stable")[: groups.kept]
        ranking[~np.isin(np.arange(E) // (E // groups.count), kept)] = -np.inf
    return ranking


def _ranking(rule: Scores) -> np.ndarray:
    bias = jnp.asarray(BIAS) if rule.choice_bias else None
    return np.asarray(rule.ranking(jnp.asarray(LOGITS), bias))


@rules
def test_rankings_are_the_rules(rule):
    """Experts would be drawn with other odds, or others be the best."""
    found, exact = _ranking(rule), _exact_ranking(rule)
    if isinstance(rule, SoftmaxScores) and not rule.choice_bias:
        found = found - np.log(np.exp(LOGITS).sum())  # logits themselves: equal odds
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


@rules
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_each_rule_is_drawn_from_as_plackett_luce_says(rule, draw, noise):
    """Noise on scores instead of their logarithms, or groups chosen with noise."""
    policy, (head, r, tau) = draw
    exact = _exact_ranking(rule)
    order = np.argsort(-exact, kind="stable")
    tail = order[head : min(r, np.isfinite(exact).sum())]
    always = sum(1 << int(e) for e in order[:head])
    table = np.zeros(1 << E)
    for drawn, chance in plackett_luce_sets(exact[tail] / tau, K - head).items():
        table[always + sum(1 << int(tail[j]) for j in drawn)] = chance
    policy = policy.resolve(k=K, num_experts=E, num_layers=1)
    ranking = jnp.broadcast_to(_ranking(rule), (S * T, E))
    chosen = _choose_from(policy, ranking, noise[:, :, 0].reshape(-1, E))
    sets = (1 << np.asarray(chosen)).sum(axis=1)
    assert excess(np.bincount(sets, minlength=1 << E), table) < 1


@jax.jit
def _choose_from(policy, ranking, noise):
    return choose_experts(policy.at_layer(0), ranking, noise)


@rules
def test_nothing_is_left_to_chance_in_degenerate_cases(rule, noise):
    """Promise 3 under every rule; and no noise brings forbidden experts back."""
    ranking = jnp.broadcast_to(_ranking(rule), (500, E))
    rows = noise[0, :500, 0]

    def chosen(policy):
        policy = policy.resolve(k=K, num_experts=E, num_layers=1)
        return np.asarray(_choose_from(policy, ranking, rows))

    best = chosen(TopK())
    assert (best == np.argsort(-_exact_ranking(rule), kind="stable")[:K]).all()
    for policy in (ExpertSample(K), ExpertSample(tau=0.0), GumbelTopK(0.0)):
        assert np.array_equal(chosen(policy), best)
    forbidden = np.flatnonzero(~np.isfinite(_exact_ranking(rule)))
    for tau in (1e3, 3e38):
        assert not np.isin(chosen(ExpertSample(0, E, tau)), forbidden).any()


def _tables(noise, pairs):
    """Joint counts of two equally drawn sets, and what independence expects."""
    exact = _exact(1, 4, 1.0)  # 3 sets
    names = np.flatnonzero(exact)
    index = {int(name): place for place, name in enumerate(names)}
    sets = _sets(ExpertSample(1, 4), noise)
    places = np.vectorize(index.__getitem__)(sets)
    first, second = (np.asarray(part).ravel() for part in pairs(places))
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (first, second), 1)
    return counts, np.outer(exact[names], exact[names])


PAIRS = {
    "samples": lambda sets: (sets[0], sets[1]),
    "positions": lambda sets: (sets[:, 0::2], sets[:, 1::2]),
    "layers": lambda sets: (sets[..., 0], sets[..., 1]),
    "a sample and the next one's position": lambda s: (s[0, 1:], s[1, :-1]),
    "a layer and the next position's": lambda s: (s[:, :-1, 1], s[:, 1:, 0]),
}


@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_draws_are_independent_across(pairs, noise):
    """Shared or shifted streams would make samples, positions or layers agree."""
    assert excess(*_tables(noise, pairs)) < 1


def test_dependence_would_be_seen(noise):
    """The test above has power: one draw in ten taken over is rejected."""

    def pairs(sets):
        first, second = sets[..., 0].ravel(), sets[..., 1].ravel().copy()
        second[::10] = first[::10]
        return first, second

    assert excess(*_tables(noise, pairs)) > 1


def test_route_and_token_draws_are_independent(noise):
    """The experts of a token must not tell which token was drawn there."""

    def point(i, t):
        key = position_key(sample_key(jax.random.key(2024), i), t)
        return jax.random.uniform(token_key(key))

    points = jax.jit(jax.vmap(jax.vmap(point, (None, 0)), (0, None)))(
        jnp.arange(S), jnp.arange(T)
    )
    exact = _exact(1, 4, 1.0)
    bins = np.minimum(np.asarray(points) * 4, 3).astype(int)
    counts = np.zeros((4, 1 << E))
    np.add.at(counts, (bins, _sets(ExpertSample(1, 4), noise)[..., 0]), 1)
    assert excess(counts, np.outer(np.full(4, 0.25), exact)) < 1


@pytest.mark.parametrize("policy", [ExpertSample(0, 8, 5.0), GumbelTopK(5.0)])
def test_noise_chooses_and_scores_weigh(policy, noise):
    """Equal sets weigh equally, however they were drawn: by the router's scores."""
    resolved = policy.resolve(k=K, num_experts=E, num_layers=1)
    chosen = _choose(resolved, noise[0, :500, 0])
    logits = jnp.broadcast_to(LOGITS, (500, E))
    weights = np.asarray(SoftmaxScores(True).weights(logits, chosen))
    expected = np.exp(LOGITS.astype(np.float64))[np.asarray(chosen)]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    names = (1 << np.asarray(chosen)).sum(axis=1)
    for name in np.unique(names):
        assert len(np.unique(weights[names == name], axis=0)) == 1


def test_drawn_experts_do_not_depend_on_the_rest_of_the_batch(noise):
    """One row alone and among others must choose alike, bit for bit."""
    policy = ExpertSample(1, 6).resolve(k=K, num_experts=E, num_layers=1)
    together = _choose(policy, noise[0, :8, 0])
    for row in (0, 7):
        alone = _choose(policy, noise[0, row : row + 1, 0])
        np.testing.assert_array_equal(alone[0], together[row])
    rank = np.argsort(np.argsort(-np.asarray(LOGITS), kind="stable"))
    assert (np.diff(rank[np.asarray(together)], axis=1) > 0).all()
