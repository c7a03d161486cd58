"""The promises of the design, for every family.

Qwen3-MoE's are kept by the tests of `jaxmoe.sample` as well; here it stands for the
tests themselves.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample, GumbelTopK, RouteEnsemble, TokenSampler, TopK
from jaxmoe.config import MoEConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import quantise_params, stack_params
from tests.tiny import answers, tiny_params

IN_EVERY_CI_RUN = {
    ("qwen3_moe", 0),
    ("deepseek_v3", 0),
    ("gpt_oss", 0),
    ("qwen3_next", 0),
}
"""A cover of what layers are made of (tested below); the others are slow tests."""
BY_DEFAULT = ("deepseek_v3", 0)
"""The one that the default suite has: of many parts, and unlike Qwen3-MoE."""


def marks_of(case: tuple[str, int]) -> tuple[pytest.MarkDecorator, ...]:
    """When a configuration is tried."""
    if case == BY_DEFAULT:
        return ()
    return (pytest.mark.thorough if case in IN_EVERY_CI_RUN else pytest.mark.slow,)


CASES = [
    pytest.param(
        ("qwen3_moe", 0, "int8"), id="qwen3_moe-0-int8", marks=pytest.mark.slow
    )
] + [
    pytest.param(
        (name, number, "float"),
        id=f"{name}-{number}",
        marks=marks_of((name, number)),
    )
    for name, family in FAMILIES.items()
    for number in range(len(family.test_configs))
    if not family.scores  # qwen2_prm_test.py
    if name != "qwen3_moe" or number == 0
]
KEY = jax.random.key(5)


def parts(name: str, number: int) -> set[object]:
    """Kinds of mixers, feed-forwards, scores, activations and weights of a model."""
    config = from_hf(dict(FAMILIES[name].test_configs[number]))
    found: set[object] = set()
    for layer in config.layers:
        ff = layer.feed_forward
        found |= {type(layer.mixer), type(ff), type(ff.activation)}
        if isinstance(ff, MoEConfig):
            groups = ff.scoring.groups is not None
            found |= {type(ff.scoring), ("groups", groups), ("bias", ff.bias)}
            found |= {("weights", ff.weights), ("shared", ff.shared is not None)}
    return found


def test_every_ci_run_has_each_part():
    """A mixer or a rule of scores would be tried by slow tests alone."""
    every = (
        (name, i) for name, f in FAMILIES.items() for i in range(len(f.test_configs))
    )
    known = set().union(*(parts(*case) for case in every))
    here = set().union(*(parts(*case) for case in IN_EVERY_CI_RUN))
    # Packed weights are the kernels' alone: tests/ops/mxfp4_test.py.
    assert known - here == {("weights", "mxfp4")}


SAMPLER = TokenSampler(0.9, top_k=20)


@pytest.fixture(scope="module", params=CASES)
def model(request) -> jaxmoe.Model:
    """A random model of a test configuration, scanned as it would be loaded."""
    name, number, weights = request.param
    config = from_hf(dict(FAMILIES[name].test_configs[number]))
    params = stack_params(config, tiny_params(config))
    if weights == "int8":
        config, params = quantise_params(config, params)
    return jaxmoe.Model(replace(config, stop_ids=()), params)


def prompts_of(model: jaxmoe.Model) -> list[np.ndarray]:
    """Two prompts of different lengths."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, model.config.vocab_size, size) for size in (9, 14)]


def draw(model: jaxmoe.Model, prompts, **options):
    """Answers with routes, in eight slots, to two prompts."""
    given = {"key": KEY, "n": 3, "sampler": SAMPLER, "max_new_tokens": 10, "slots": 8}
    given |= {"return_routes": True}
    return jaxmoe.sample(model, prompts, **{**given, **options})


def draw_first(model: jaxmoe.Model, routes=None, **options) -> jaxmoe.Samples:
    """Of these, the first prompt's: one prompt alone would need its own programs."""
    given = None if routes is None else [routes, np.full_like(routes, -1)]
    return draw(model, prompts_of(model), routes=given, **options)[0]


def same_bits(one: jaxmoe.Samples, other: jaxmoe.Samples, rows: int) -> bool:
    """Equal first answers, in every number."""
    return (
        answers(one)[:rows] == answers(other)[:rows]
        and np.array_equal(one.logprobs[:rows], other.logprobs[:rows])
        and np.array_equal(one.routes[:rows], other.routes[:rows])
    )


@pytest.mark.optimised
def test_a_sample_is_a_function_of_its_key(model):
    """Promise 2: n, neighbours, order or refilled slots would change an answer."""
    prompts = prompts_of(model)
    both = draw(model, prompts)
    many = draw(model, prompts, n=7)
    assert all(same_bits(a, b, 3) for a, b in zip(both, many, strict=True))
    keys = [jaxmoe.keys.prompt_key(KEY, j) for j in (1, 0)]
    turned = draw(model, prompts[::-1], key=keys)
    assert all(same_bits(a, b, 3) for a, b in zip(both, turned[::-1], strict=True))


@pytest.mark.slow
def test_several_routes_share_one_clean_state(model):
    """What routes leave behind would be read, or a memory count a position often."""
    policy, prompt = RouteEnsemble(GumbelTopK(2.0), 2), prompts_of(model)[0]
    drawn = draw_first(model, policy=policy)
    if not model.config.num_experts:  # there are no routes
        assert same_bits(drawn, draw_first(model, policy=TopK()), 3)
        return
    recurrent = model.config.family in ("qwen3_next", "qwen3_5_moe")
    for i, t in ((0, 1), (1, 6), (2, 9)):
        ids = np.concatenate([prompt, drawn.tokens[i, :t]])
        chances = []
        for route in np.split(drawn.routes[i, t], 2, axis=-1):
            routes = np.full((len(ids), *route.shape), -1)
            routes[-1] = route
            passed = jaxmoe.forward(model, ids, policy=TopK(), routes=routes)
            chances.append(jax.nn.softmax(passed[-1])[drawn.tokens[i, t]])
        found = np.exp(drawn.logprobs[i, t])
        atol = 5e-3 if recurrent else 2e-4
        np.testing.assert_allclose(found, np.mean(chances), rtol=atol)


def test_decoding_is_the_pass_over_the_whole(model):
    """Prefill, decode and one pass would compute different models."""
    prompt, drawn = prompts_of(model)[0], draw_first(model)
    for i in range(3):
        ids = np.concatenate([prompt, drawn.tokens[i]])
        routes = jaxmoe.place_routes(len(prompt), 10, drawn.routes[i])
        logits = np.asarray(jaxmoe.forward(model, ids, policy=TopK(), routes=routes))
        logits = logits[len(prompt) - 1 : -1]
        logprobs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        found = logprobs[np.arange(10), drawn.tokens[i]]
        # A recurrence adds up what rounding does (tests/parity/families_test.py).
        recurrent = model.config.family in ("qwen3_next", "qwen3_5_moe")
        atol = 5e-3 if recurrent else 2e-4
        np.testing.assert_allclose(drawn.logprobs[i], found, atol=atol)


def test_routes_are_replayed(model):
    """A recorded answer could not be computed again by another policy."""
    once = draw_first(model)
    again = draw_first(model, policy=TopK(), routes=once.routes)
    assert answers(once) == answers(again)
    assert np.array_equal(once.routes, again.routes)


@pytest.mark.optimised
def test_degenerate_policies_are_top_k(model):
    """Promise 3: k_keep = k and tau = 0 leave nothing to chance."""
    k = model.config.experts_per_token
    plain = draw_first(model, policy=TopK())
    for policy in (ExpertSample(k_keep=k), ExpertSample(tau=0.0)):
        assert same_bits(plain, draw_first(model, policy=policy), 3)


@pytest.mark.slow
def test_a_continuation_scores_as_in_one_pass(model):
    """What a mixer carries on from a context would not be what it computes whole."""
    before, after = prompts_of(model)
    pairs = [(before, after), (before, after[::-1])]
    options = {"policy": ExpertSample(), "key": KEY, "batch": 2}
    steps = jaxmoe.loglikelihood(model, pairs, **options)
    whole = jaxmoe.loglikelihood(model, pairs, prompt_logprobs=True, **options)
    for one, other in zip(steps, whole, strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-3)
