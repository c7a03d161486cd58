"""What is recorded of each token is what one pass over the answer gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe import AdaptiveHead, ExpertSample, GumbelTopK, TopK
from jaxmoe.decode import trace
from jaxmoe.nn.base import Sequences
from jaxmoe.nn.decoder import bind, whole_sequences
from jaxmoe.router.routing import route_logprobs
from tests.tiny import CONTEXT, SHAPES, STOP, VOCAB, prompt_of, tiny_model

pytestmark = pytest.mark.thorough

PROMPT = prompt_of(20)
TOP, NEW = 5, 12
LONGEST = len(PROMPT) + NEW


@pytest.fixture(scope="module")
def model():
    """One model, so that its programs are compiled once."""
    return tiny_model()


def draw(model, **options):
    """Three answers with everything recorded."""
    given = {"key": jax.random.key(0), "n": 3, **SHAPES, "max_new_tokens": NEW}
    given |= {"top_logprobs": TOP, "return_certainty": True}
    given |= {"return_route_logprobs": True}
    return jaxmoe.sample(model, PROMPT, **{**given, **options})


@pytest.fixture(scope="module")
def drawn(model):
    """The answers that most tests look at."""
    return draw(model)


@pytest.fixture(scope="module")
def logprobs_of_one_pass(model, drawn):
    """Of each answer, the log-probabilities [T, V] that its tokens were drawn from."""
    each = []
    for i, length in enumerate(drawn.lengths.tolist()):
        ids = np.concatenate([PROMPT, drawn.tokens[i, :length]])
        routes = jaxmoe.place_routes(len(PROMPT), length, drawn.routes[i])
        logits = np.asarray(jaxmoe.forward(model, ids, policy=TopK(), routes=routes))
        logits = logits[len(PROMPT) - 1 : -1].astype(np.float64)
        each.append(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))
    return each


def test_self_certainty_is_that_of_one_pass(drawn, logprobs_of_one_pass):
    """Answers would be weighed by something else than what the paper names."""
    for i, logprobs in enumerate(logprobs_of_one_pass):
        length = len(logprobs)
        expected = -np.log(VOCAB) - logprobs.mean(axis=1)
        found = drawn.certainties[i, :length]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert (found > 0).all()
        assert not drawn.certainties[i, length:].any()


def test_top_logprobs_are_those_of_one_pass(drawn, logprobs_of_one_pass):
    """Other tokens than the most likely ones would be shown, or other numbers."""
    for i, logprobs in enumerate(logprobs_of_one_pass):
        length = len(logprobs)
        found = drawn.top_logprobs[i, :length]
        best = np.sort(logprobs, axis=-1)[:, ::-1][:, :TOP]
        np.testing.assert_allclose(found, best, atol=2e-4)
        at = np.take_along_axis(logprobs, drawn.top_ids[i, :length], axis=-1)
        np.testing.assert_allclose(found, at, atol=2e-4)
        assert (np.diff(found) <= 0).all()


def test_route_logprobs_are_those_of_the_law(model, drawn):
    """They could be of another policy, another layer, or the token before."""
    config = model.config
    policy = ExpertSample().resolve(
        k=config.experts_per_token,
        num_experts=config.num_experts,
        num_layers=config.num_layers,
    )
    assert not drawn.route_logprobs[:, :, 0].any(), "layer 0 is dense"
    # The prompt's pass is routed without noise.
    assert not drawn.route_logprobs[:, 0].any()
    for i, length in enumerate(drawn.lengths.tolist()):
        ids = np.concatenate([PROMPT, drawn.tokens[i, :length]])
        routes = jaxmoe.place_routes(len(PROMPT), length, drawn.routes[i])
        rankings = rankings_of(model, ids, routes)
        here = slice(len(PROMPT), len(ids) - 1)
        chosen = np.resize(routes[:, 1], (LONGEST, routes.shape[-1])).astype(np.int32)
        expected = _law(policy.at_layer(1), rankings, chosen)[here]
        assert (np.asarray(expected) < 0).any()
        found = drawn.route_logprobs[i, 1:length, 1]
        np.testing.assert_allclose(found, expected, atol=1e-4)


_law = jax.jit(route_logprobs)


def rankings_of(model, ids, routes):
    """What layer 1 ranks experts by in one pass with these routes."""
    more = LONGEST - len(ids)  # tokens behind the end change nothing before it
    ids = np.pad(ids, (0, more)).astype(np.int32)
    routes = np.pad(routes, ((0, more), (0, 0), (0, 0)), constant_values=-1)
    return _rankings(model.config, model.params, ids, routes.astype(np.int32))


@partial(jax.jit, static_argnames="config")
def _rankings(config, params, ids, routes):
    positions = jnp.arange(LONGEST, dtype=jnp.int32)
    sequences = Sequences(
        positions, jnp.full(LONGEST, LONGEST), jnp.ones(LONGEST, bool), 1, False
    )

    def choose(layer, ranking):
        best = jax.lax.top_k(ranking, routes.shape[-1])[1]
        given = routes[:, layer]
        return jnp.where(given[:, :1] >= 0, given, best)

    passed = bind(config, params, CONTEXT).run(
        ids,
        whole_sequences(sequences, CONTEXT),
        choose,
        CONTEXT,
        width=routes.shape[-1],
        keep_rankings=True,
    )
    return passed.rankings[0]


@pytest.mark.parametrize(
    "policy", [TopK(), ExpertSample(tau=0.0), ExpertSample(k_keep=4)]
)
def test_nothing_is_left_to_chance(model, policy):
    """A certain choice has probability 1."""
    assert not draw(model, policy=policy).route_logprobs.any()


# Whole programs are compiled anew for each; the law of each policy is tested in
# tests/router/plackett_luce_test.py.
@pytest.mark.slow
@pytest.mark.parametrize("policy", [GumbelTopK(0.7), AdaptiveHead(0.4)])
def test_every_policy_knows_its_routes(model, policy):
    """Importance weights between policies need the probability under each."""
    found = draw(model, policy=policy)
    length = int(found.lengths[0])
    assert np.isfinite(found.route_logprobs).all()
    assert (found.route_logprobs[0, 1:length, 1] < 0).any()


def test_noisy_prompts_have_route_logprobs_too(model):
    """The first token's experts were drawn: their probability is not 1."""
    found = draw(model, noisy_prefill=True)
    assert (found.route_logprobs[:, 0, 1] < 0).all()


def test_what_is_recorded_changes_nothing_else(model, drawn):
    """Asking for more would give other answers."""
    plain = draw(
        model, top_logprobs=0, return_certainty=False, return_route_logprobs=False
    )
    np.testing.assert_array_equal(plain.tokens, drawn.tokens)
    np.testing.assert_array_equal(plain.logprobs, drawn.logprobs)
    np.testing.assert_array_equal(plain.routes, drawn.routes)
    assert plain.top_ids is plain.top_logprobs is plain.route_logprobs is None


def test_records_stay_with_their_answer(model, drawn):
    """Another n or other slots would mix up answers."""
    many = draw(model, n=7)
    rows = slice(0, 3), slice(0, drawn.tokens.shape[1])
    for name in ("top_ids", "top_logprobs", "route_logprobs", "certainties"):
        np.testing.assert_array_equal(getattr(many, name)[rows], getattr(drawn, name))


def test_answers_are_filled_up():
    """Padding could be taken for a token."""
    one, other = (
        trace.TokenTrace(
            np.arange(n, dtype=np.int32),
            np.ones(n, np.float32),
            routes=np.ones((n, 2, 3), np.int16),
            top_ids=np.ones((n, 4), np.int32),
            top_logprobs=np.ones((n, 4), np.float32),
        )
        for n in (2, 3)
    )
    both = trace.stack([one, other], pad_id=9)
    assert both.token.tolist() == [[0, 1, 9], [0, 1, 2]]
    assert both.certainty is None
    assert (both.routes[0, 2] == -1).all() and (both.top_ids[0, 2] == -1).all()
    assert (both.top_logprobs[0, 2] == 0).all()
    cut = trace.join([one, other], 4)
    assert cut.token.tolist() == [0, 1, 0, 1] and cut.routes.shape == (4, 2, 3)


@pytest.mark.parametrize("count", [-1, VOCAB + 1, 1.5, True])
def test_bad_counts_are_refused(model, count, untyped):
    """XLA would say something about an operand."""
    with pytest.raises(ValueError, match="top_logprobs"):
        draw(model, top_logprobs=count)


def test_stop_token_is_recorded_last(model):
    """The record of a stopped answer would be longer than the answer."""
    found = draw(model, n=16, max_new_tokens=60)
    assert "stop" in found.finish
    for i, length in enumerate(found.lengths.tolist()):
        if found.finish[i] == "stop":
            assert found.tokens[i, length - 1] == STOP
            assert (found.top_ids[i, length:] == -1).all()
