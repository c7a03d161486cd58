"""Several routes a token over one clean cache, against whole-sequence passes."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe import Biased, Dropout, GumbelTopK, RouteEnsemble, TopK
from jaxmoe.decode.ensemble import averaged
from jaxmoe.random.keys import ROUTES, ensemble_keys, position_key, route_key
from jaxmoe.router.ensemble import MOST_ROUTES
from jaxmoe.router.policies import Policy, ranked
from jaxmoe.typing import pytree
from tests.tiny import CHOSEN, EXPERTS, SHAPES, prompt_of, tiny_model

N, J, KEY = 4, 3, 1
PROMPT = prompt_of(20)


def reference(logits: np.ndarray) -> np.ndarray:
    """log p of the mean of J distributions, in float64: [J, ..., V] -> [..., V]."""
    logits = logits.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.log((weights / weights.sum(axis=-1, keepdims=True)).mean(axis=0))


@pytest.mark.thorough
def test_averages_are_of_probabilities():
    """An average of logits is another distribution: routes that agree less say less."""
    random = np.random.default_rng(0)
    logits = np.float32(random.normal(size=(J, 5, 97)) * [[[1.0]], [[9.0]], [[30.0]]])
    expected = reference(logits)
    found = np.asarray(jax.nn.log_softmax(averaged(jnp.asarray(logits)), axis=-1))
    near = np.maximum(1e-5, 1e-6 * abs(expected))
    assert (abs(found - expected) < near).all()
    of_logits = np.asarray(jax.nn.log_softmax(logits.mean(axis=0), axis=-1))
    assert abs(of_logits - expected).max() > 1
    extreme = np.float32([[[0, -1e4, 9]], [[-1e4, 0, 9]]])
    np.testing.assert_allclose(
        averaged(jnp.asarray(extreme))[0, :2] - 9, [-9.6931] * 2, atol=1e-3
    )


@pytest.mark.optimised
@pytest.mark.parametrize(
    "counts",
    [
        pytest.param((7, 41, 55, MOST_ROUTES), id="some"),
        pytest.param(range(1, MOST_ROUTES + 1), id="all", marks=pytest.mark.slow),
    ],
)
def test_equal_routes_are_averaged_to_themselves(counts):
    """Promise 3: the answers of `TopK()` would differ in their last bits.

    In one program, whose compiler may put a product for a division by J: 41 times the
    nearest number to 1 / 41 is not 1.
    """
    row = jnp.asarray(np.random.default_rng(1).normal(size=(3, 97)) * 20, jnp.float32)
    row = row.at[1, 5].set(-jnp.inf)
    every = jnp.broadcast_to(row, (MOST_ROUTES, 3, 97))

    @jax.jit
    def of_each_count(logits):
        return [averaged(logits[:count]) for count in counts]

    np.testing.assert_array_equal(of_each_count(every), every[: len(counts)])


def test_tokens_that_some_routes_rule_out():
    """-inf less -inf: a token that a route rules out would have no number."""
    logits = np.float32([[0, -np.inf, 1, -np.inf], [2, 1, -np.inf, -np.inf]])
    for rows in (logits, logits[::-1]):
        found = jax.nn.softmax(averaged(jnp.asarray(rows)), axis=-1)
        expected = np.mean(jax.nn.softmax(logits, axis=-1), axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_keys_of_routes():
    """Routes would repeat each other, or a larger J change the first of them."""
    key = position_key(jax.random.key(5), 3)
    found = jax.random.key_data(ensemble_keys(key, 4))
    assert len(np.unique(np.asarray(found), axis=0)) == 4
    fold = jax.random.fold_in
    expected = [key, *(fold(fold(key, ROUTES), j) for j in (1, 2, 3))]
    np.testing.assert_array_equal(found, [jax.random.key_data(k) for k in expected])
    np.testing.assert_array_equal(jax.random.key_data(ensemble_keys(key, 2)), found[:2])


def draw(policy, model=None, **options) -> jaxmoe.Samples:
    """Answers with everything but the policy fixed."""
    given = {"key": KEY, "n": N, **SHAPES, "max_new_tokens": 12, **options}
    given["ignore_eos"] = True
    return jaxmoe.sample(model or tiny_model(), PROMPT, policy=policy, **given)


def as_routes(samples: jaxmoe.Samples) -> np.ndarray:
    """Recorded experts, [n, T, L, J, K]."""
    assert samples.routes is not None
    return samples.routes.reshape(*samples.routes.shape[:3], -1, CHOSEN)


def check_against_passes(model, policy, found: jaxmoe.Samples) -> None:
    """The formula, with passes over whole sequences that take the recorded routes.

    Before the token's position they route without noise: that is the clean cache.
    """
    plain, routes = TopK(), as_routes(found)
    if isinstance(policy.policy, Biased):
        plain = Biased(plain, policy.policy.bias)
    for i, t in ((0, 1), (1, 2), (2, 5), (3, 8), (3, 11)):
        sequence = np.concatenate([PROMPT, found.tokens[i, :t]])
        logits = []
        for route in np.moveaxis(routes[i, t], 1, 0):
            forced = np.full((len(sequence), *route.shape), -1)
            forced[-1] = route
            passed = jaxmoe.forward(model, sequence, policy=plain, routes=forced)
            logits.append(np.asarray(passed)[-1])
        expected = reference(np.stack(logits))[found.tokens[i, t]]
        np.testing.assert_allclose(found.logprobs[i, t], expected, atol=2e-4)
        # Route 1 is the one that the policy itself draws there.
        drawn = jaxmoe.forward(
            model,
            sequence,
            policy=policy.policy,
            key=jaxmoe.keys.sample_key(jax.random.key(KEY), i),
            noise_from=len(sequence) - 1,
            return_routes=True,
        )[1][-1]
        np.testing.assert_array_equal(routes[i, t, :, 0], drawn)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [GumbelTopK(2.0), Biased(Dropout(0.3), np.arange(EXPERTS) % 3)],
    ids=["gumbel", "biased dropout"],
)
def test_answers_are_those_of_whole_passes(policy):
    """Another average, noise in the cache, or a route that sees another's position."""
    policy = RouteEnsemble(policy, J)
    found = draw(policy, return_certainty=True, top_logprobs=3)
    check_against_passes(tiny_model(), policy, found)
    apart = as_routes(found)[:, 3, 1]
    assert (apart[:, 0] != apart[:, 1]).any()
    # What is recorded is all that the draw depends on.
    again = draw(RouteEnsemble(policy.policy, J), routes=found.routes)
    np.testing.assert_array_equal(again.tokens, found.tokens)
    np.testing.assert_array_equal(again.logprobs, found.logprobs)
    alone = draw(policy, samples=[2], return_certainty=True, top_logprobs=3)
    np.testing.assert_array_equal(alone.tokens[0], found.tokens[2])
    np.testing.assert_array_equal(alone.logprobs[0], found.logprobs[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [RouteEnsemble(TopK(), J), RouteEnsemble(GumbelTopK(0.0), 1)],
    ids=["TopK", "one route, tau 0"],
)
def test_routes_of_the_model_itself_change_nothing(policy):
    """Promise 3, with tokens; the rows of a step are more, so bits may differ."""
    found, plain = draw(policy), draw(TopK())
    np.testing.assert_array_equal(found.tokens, plain.tokens)
    np.testing.assert_allclose(found.logprobs, plain.logprobs, atol=1e-5)
    every = as_routes(found)
    assert plain.routes is not None
    for route in np.moveaxis(every[:, 1:], 3, 0):
        np.testing.assert_array_equal(route, plain.routes[:, 1:])
    np.testing.assert_array_equal(every[:, 0, :, 0], plain.routes[:, 0])
    assert (every[:, 0, :, 1:] == -1).all()


@pytest.mark.slow
def test_recorded_log_probabilities_are_of_all_routes():
    """Importance weights would be of one of them."""
    policy = RouteEnsemble(GumbelTopK(2.0), J)
    found = draw(policy, return_route_logprobs=True)
    replayed = [
        draw(RouteEnsemble(GumbelTopK(2.0), 1), routes=part, return_route_logprobs=True)
        for part in np.moveaxis(as_routes(found), 3, 0)
    ]
    assert found.route_logprobs is not None
    # The second token's: later ones of other answers.
    parts = [r.route_logprobs[:, 1] for r in replayed if r.route_logprobs is not None]
    np.testing.assert_allclose(found.route_logprobs[:, 1], sum(parts), atol=1e-4)
    assert (found.route_logprobs[:, 1, 1] < 0).all()


@pytest.mark.slow
def test_noise_of_routes_is_that_of_their_keys():
    """A choice could not be made again from key, sample, position, route and layer."""

    @pytree("k")
    @dataclass(frozen=True)
    class Noise(Policy):
        """The best of the noise alone."""

        k: int = CHOSEN

        @property
        def width(self):
            return self.k

        def resolve(self, *, k, num_experts, num_layers):
            return self

        def choose(self, ranking, noise):
            return ranked(noise, self.k).experts

    found = as_routes(draw(RouteEnsemble(Noise(), J)))
    i, t, layer = 1, 1, 1
    k_i = jaxmoe.keys.sample_key(jax.random.key(KEY), i)
    keys = ensemble_keys(position_key(k_i, len(PROMPT) + t - 1), J)
    noise = [jax.random.gumbel(route_key(key, layer), (EXPERTS,)) for key in keys]
    expected = np.argsort(-np.asarray(noise), axis=1)[:, :CHOSEN]
    np.testing.assert_array_equal(found[i, t, layer], expected)
