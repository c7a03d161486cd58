"""Weights between policies, against a law that is counted out."""

import itertools
import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jaxmoe import ExpertSample, TopK, place_routes, sample
from jaxmoe.analysis.route_weights import (
    effective_size,
    log_ratio,
    route_logprobs,
    route_weights,
)
from jaxmoe.analysis.router_pass import Passage
from jaxmoe.demo.network import logits_of
from tests.tiny import CHOSEN, prompt_of, tiny_model

pytestmark = pytest.mark.thorough

PROMPT, LENGTH = 3, 8
A, B = ExpertSample(k_keep=2, r=10, tau=1.5), ExpertSample(k_keep=2, r=8, tau=0.7)


@pytest.fixture(scope="module")
def model():
    """A dense layer, then a mixture."""
    return tiny_model()


@pytest.fixture(scope="module")
def rankings(model):
    """Of one text by its own routes, float64 [T, E]."""
    tokens = jnp.asarray(prompt_of(LENGTH)[None], jnp.int32)
    run = jax.jit(lambda p: logits_of(model.config, p, tokens, "auto")[1])
    # Its L is of all layers or of those with experts, which are not as many here.
    jaxtyping.config.update("jaxtyping_disable", True)
    found = np.asarray(run(model.params), np.float64)[0]
    jaxtyping.config.update("jaxtyping_disable", False)
    return found


@pytest.fixture(scope="module")
def answer(rankings) -> Passage:
    """A text whose last routes have been drawn: the best two, then ranks 4 and 7."""
    order = np.argsort(-rankings, axis=-1).astype(np.int16)
    routes = np.full((LENGTH, 2, CHOSEN), -1, np.int16)
    routes[PROMPT - 1 :, 1] = order[PROMPT - 1 :, [0, 1, 3, 6]]
    return Passage(prompt_of(LENGTH).astype(np.int32), PROMPT, routes)


def _law(ranking, chosen, policy) -> float:
    """log P of the two that are drawn, one after the other, in either order."""
    w = np.exp(np.sort(ranking)[::-1][2 : policy.r] / policy.tau)
    drawn = [j - 2 for j in chosen]
    ways = [
        math.prod(
            w[j] / (w.sum() - w[list(order[:i])].sum()) for i, j in enumerate(order)
        )
        for order in itertools.permutations(drawn)
    ]
    return math.log(sum(ways))


def test_log_probabilities_are_those_of_the_law(model, answer, rankings):
    """A route would be asked about another token's scores, or in another layer."""
    # Of one token, the first that has a route: those before it are as in `rankings`.
    first = PROMPT - 1
    given = route_logprobs(model, answer, [A, B], noisy_prefill=True)
    for policy, found in zip((A, B), given, strict=True):
        assert found[first, 1] == pytest.approx(
            _law(rankings[first], (3, 6), policy), abs=1e-4
        )
        assert (found[:first] == 0).all() and (found[:, 0] == 0).all()
        assert (found[first:, 1] < 0).all()


@pytest.mark.parametrize("noisy_prefill", [False, True])
def test_they_are_those_that_were_recorded(model, noisy_prefill):
    """The prompt's last route would count as drawn where it was not, or not as so."""
    given: Any = {"policy": A, "key": 0, "max_new_tokens": 5}
    given |= {"return_routes": True, "return_route_logprobs": True}
    prompt = prompt_of(PROMPT)
    drawn: Any = sample(model, prompt, noisy_prefill=noisy_prefill, **given)
    length = int(drawn.lengths[0])
    placed = place_routes(PROMPT, length, drawn.routes[0])[:-1]
    tokens = np.append(prompt, drawn.tokens[0, : length - 1]).astype(np.int32)
    one = Passage(tokens, PROMPT, placed, int(drawn.tokens[0, length - 1]))
    (found,) = route_logprobs(model, one, [A], noisy_prefill=noisy_prefill)
    recorded = drawn.route_logprobs[0, :length]
    np.testing.assert_allclose(found[PROMPT - 1 :], recorded, atol=1e-4)
    assert found.sum() == pytest.approx(recorded.sum(), abs=1e-3)
    weights = route_weights(
        model, [one], target=B, behaviour=A, noisy_prefill=noisy_prefill
    )
    assert (weights.tokens[0][PROMPT - 1] != 0) == noisy_prefill


def test_weights_are_ratios_and_none_between_equals(model, answer):
    """Equal policies would have weights of rounding; a token would be left out."""
    of_a, of_b = (np.float64(x) for x in route_logprobs(model, answer, [A, B]))
    found = route_weights(model, [answer], target=A, behaviour=B)
    np.testing.assert_array_equal(found.tokens[0], (of_a - of_b).sum(axis=1))
    assert found.answers[0] == pytest.approx((of_a - of_b).sum())
    assert found.impossible == (0,)
    same = route_weights(model, [answer], target=A, behaviour=A)
    assert (same.layers[0] == 0).all() and same.effective == 1


def test_routes_that_a_policy_never_takes(model, answer):
    """An answer that top-k never gives would count for something, or the other way."""
    plain = replace(A, tau=0.0)
    found = route_weights(model, [answer], target=plain, behaviour=A)
    assert np.isneginf(found.answers).all() and found.effective == 0
    with pytest.warns(UserWarning, match="5 routes"):
        wrong = route_weights(model, [answer], target=A, behaviour=plain)
    assert np.isnan(wrong.answers).all() and wrong.impossible == (LENGTH - PROMPT,)


def test_ratios_of_what_cannot_be():
    """-inf less -inf is nan, also where both are one policy."""
    a, b = np.array([0, -np.inf, -np.inf, -1.0]), np.array([-1, -np.inf, -2, -np.inf])
    np.testing.assert_array_equal(log_ratio(a, b), [1, 0, -np.inf, np.nan])


@pytest.mark.parametrize(
    ("log_weights", "size"),
    [
        ([0, 0, 0], 3),
        ([-5000, -5000, -np.inf], 2),
        ([0, np.log(3)], 16 / 10),
        ([-np.inf], 0),
        ([0, np.nan], np.nan),
    ],
)
def test_effective_size(log_weights, size):
    """Weights far below 1 would underflow to none."""
    found = effective_size(np.array(log_weights, np.float64))
    assert found == pytest.approx(size, nan_ok=True)


def test_what_does_not_fit_is_refused(model, answer):
    """There would be an error out of the middle of a pass, or a wrong law."""
    with pytest.raises(ValueError, match="a passage without"):
        route_logprobs(model, replace(answer, routes=None), [A])
    with pytest.raises(ValueError, match="TopK of 6"):
        route_logprobs(model, answer, [TopK(6)])
