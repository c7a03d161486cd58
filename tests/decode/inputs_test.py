"""Bad input gets one clear error before any work is done."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import AdaptiveHead, ExpertSample, GumbelTopK, TokenSampler, TopK
from tests.tiny import CHOSEN, EXPERTS, SHAPES, VOCAB, prompt_of, tiny_model

KEY = jax.random.key(0)

pytestmark = pytest.mark.usefixtures("untyped")


@pytest.fixture(scope="module")
def model():
    """A model with a short context and no tokenizer."""
    return tiny_model(context_length=64)


def draw(model, prompt=(8, 9, 10), **options):
    """Two answers to a prompt that is fine."""
    return jaxmoe.sample(model, prompt, **{"key": KEY, "n": 2, **options})


@pytest.mark.parametrize(
    ("prompt", "error", "says"),
    [
        ([], ValueError, "at least one token"),
        (np.zeros(0, np.int32), ValueError, "at least one token"),
        ([[8, 9], []], ValueError, "at least one token"),
        ([8, VOCAB], ValueError, f"0..{VOCAB - 1}, found {VOCAB}"),
        ([8, -1], ValueError, "found -1"),
        ([8.5, 9.0], TypeError, "must be integers"),
        (prompt_of(65), ValueError, "context holds 64 tokens, found a prompt of 65"),
        (prompt_of(60), ValueError, "60 and 10 new ones.*lower max_new_tokens"),
        ("text", ValueError, "needs a tokenizer"),
        (["text", "more"], ValueError, "needs a tokenizer"),
        (7, TypeError, "prompt must be text, token ids"),
        (None, TypeError, "prompt must be text, token ids"),
        ({0: 8}, TypeError, "prompt must be text, token ids"),
        (np.zeros((2, 2, 2), np.int32), ValueError, "shape"),
    ],
)
def test_prompt_that_does_not_fit(model, prompt, error, says):
    """A bad prompt would fail inside the model, or silently."""
    with pytest.raises(error, match=says):
        draw(model, prompt, max_new_tokens=10)


@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        (jax.random.PRNGKey(0), TypeError, "uint32.*wrap_key_data"),
        (jax.random.key(0, impl="rbg"), ValueError, "threefry2x32"),
        (jax.random.split(KEY, 3), ValueError, "single key"),
        (1 << 40, ValueError, "found 1099511627776"),
        (None, TypeError, "typed PRNG key"),
        ([KEY, KEY], ValueError, "one prompt"),
    ],
    ids=["raw", "rbg", "many", "int", "none", "list"],
)
def test_key_that_is_no_key(model, key, error, says):
    """A raw or rbg key would give samples that depend on their batch."""
    with pytest.raises(error, match=says):
        draw(model, key=key, max_new_tokens=4)


def test_as_many_keys_as_prompts(model):
    """Two keys for three prompts would be dealt out by guess."""
    with pytest.raises(ValueError, match="list of 3 keys.*found 2"):
        draw(model, [[8], [9], [10]], key=[KEY, KEY], max_new_tokens=4)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"n": 0}, ValueError, "n must be a whole number of at least 1, found 0"),
        ({"n": -1}, ValueError, "found -1"),
        ({"n": 1.5}, ValueError, "found 1.5"),
        ({"n": True}, ValueError, "found True"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens"),
        ({"slots": 0}, ValueError, "slots"),
        ({"slots": 10**7}, ValueError, "slots must be at most .* found 10000000"),
        ({"slots": 10**30}, ValueError, "slots must be at most"),
        ({"samples": [1, 1]}, ValueError, "distinct"),
        ({"samples": []}, ValueError, "distinct"),
        ({"samples": [-1]}, ValueError, "distinct"),
        ({"samples": [1 << 32]}, ValueError, "found 4294967296"),
        ({"n": 10**7}, ValueError, "found 10000000; .*samples="),
        ({"stop": 7}, TypeError, "stop"),
        ({"stop_ids": [VOCAB]}, ValueError, "stop_ids must lie in"),
        ({"stop_ids": ["a"]}, TypeError, "stop_ids must be token ids"),
        ({"sampler": 0.7}, TypeError, "sampler must be a TokenSampler"),
        ({"stop": [7]}, TypeError, "stop"),
        ({"stop": ("",)}, ValueError, "empty"),
        ({"stop": "\n\n"}, ValueError, "needs a tokenizer"),
        ({"implementation": "fast"}, ValueError, "implementation must be"),
        ({"policy": "topk"}, TypeError, "policy must be"),
        ({"routes": np.zeros((2, 4, 2, 9), int)}, ValueError, "routes must be"),
        ({"routes": np.full((2, 4, 2, 4), EXPERTS)}, ValueError, "name experts"),
        ({"routes": np.zeros((2, 4, 2, 4))}, ValueError, "routes must be integers"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(model, options, error, says):
    """A bad option would be taken for another, or fail after minutes of work."""
    with pytest.raises(error, match=says):
        draw(model, **{"max_new_tokens": 4, **options})


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (TopK(0), "k must be 1..16, found 0"),
        (TopK(EXPERTS + 1), "k must be 1..16, found 17"),
        (TopK(2.5), "whole"),
        (ExpertSample(k_keep=-1), "k_keep must be 0..4"),
        (ExpertSample(k_keep=CHOSEN + 1), "k_keep must be 0..4"),
        (ExpertSample(r=CHOSEN - 1), "r must be 4..16"),
        (ExpertSample(r=EXPERTS + 1), "r must be 4..16"),
        (ExpertSample(tau=-0.1), "tau must be finite and >= 0"),
        (ExpertSample(tau=float("nan")), "tau"),
        (ExpertSample(tau=float("inf")), "tau"),
        (ExpertSample(tau=np.ones(3)), "one per layer"),
        (ExpertSample(k=EXPERTS + 1), "k must be a whole number in 1..16"),
        (GumbelTopK(tau=-1), "tau"),
        (AdaptiveHead(mass=1.5), "mass must be 0..1"),
        (AdaptiveHead(r=99), "r must be"),
    ],
    ids=repr,
)
def test_policy_larger_than_the_model(model, policy, says):
    """A policy that the model cannot follow would be clipped in silence."""
    with pytest.raises(ValueError, match=says):
        draw(model, policy=policy, max_new_tokens=4)


@pytest.mark.parametrize(
    ("sampler", "says"),
    [
        (TokenSampler(temperature=-1), "temperature"),
        (TokenSampler(temperature=float("nan")), "temperature"),
        (TokenSampler(top_k=-2), "top_k"),
        (TokenSampler(top_k=1.5), "top_k"),
        (TokenSampler(top_p=1.1), "top_p"),
        (TokenSampler(top_p=-0.1), "top_p"),
        (TokenSampler(min_p=2), "min_p"),
    ],
    ids=repr,
)
def test_sampler_out_of_range(model, sampler, says):
    """A sampler's value out of range would draw from another distribution."""
    with pytest.raises(ValueError, match=says):
        draw(model, sampler=sampler, max_new_tokens=4)


def test_forward_with_a_noisy_policy_needs_a_key(model):
    """Noise without a key could not be drawn again."""
    with pytest.raises(ValueError, match="needs a key"):
        jaxmoe.forward(model, [8, 9], policy=ExpertSample())


@pytest.mark.thorough
def test_text_without_a_tokenizer_is_asked_for_by_name():
    """Token ids would come without text, and without a word why."""
    model = tiny_model()
    drawn = draw(model, prompt_of(20), **SHAPES)
    assert drawn.tokens.shape[0] == 2
    with pytest.raises(ValueError, match="text needs a tokenizer"):
        _ = drawn.text
    with pytest.raises(ValueError, match="a chat needs a tokenizer"):
        model.chat([{"role": "user", "content": "hi"}])


def test_params_of_another_model(model):
    """Weights that are not the config's would be found missing deep inside."""
    params = {k: v for k, v in model.params.items() if k != "head.weight"}
    with pytest.raises(ValueError, match="missing.*head.weight"):
        draw(jaxmoe.Model(model.config, params), max_new_tokens=4)
