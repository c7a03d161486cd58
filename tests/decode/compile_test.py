"""Calls that differ only in values reuse the compiled program."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import AdaptiveHead, ExpertSample, GumbelTopK, TokenSampler, TopK
from jaxmoe.benchmarks.calls import counted as counted_compilations
from tests.tiny import SHAPES, prompt_of, tiny_model


@pytest.fixture(scope="module")
def model():
    """One model, so that its programs are compiled once.

    Its weights are bound to their device, as `jaxmoe.load` binds them: what is computed
    from them is bound too, and to jit that is another kind of argument.
    """
    model = tiny_model()
    return replace(model, params=jax.device_put(model.params, jax.devices()[0]))


def draw(model, seed=0, length=20, n=8, **options):
    """Answers with everything but the options fixed."""
    given = {"key": jax.random.key(seed), "n": n, **SHAPES, **options}
    return jaxmoe.sample(model, prompt_of(length, seed), **given)


def test_the_counter_counts():
    """The other tests of this file could not fail."""
    with counted_compilations() as count:
        jax.jit(lambda x: x * 3 + 1)(np.arange(5)).block_until_ready()
    assert count


def test_a_second_call_compiles_nothing(model):
    """Another key, temperature, prompt, n or max_new_tokens would compile anew."""
    draw(model)
    with counted_compilations() as count:
        draw(model, seed=1)
        draw(model, sampler=TokenSampler(1.3, top_k=25))
        draw(model, sampler=TokenSampler(0, top_k=25))
        draw(model, length=31)
        draw(model, n=3)
        draw(model, n=20)
        draw(model, max_new_tokens=70)
    assert not count


@pytest.mark.thorough
def test_several_prompts_compile_once(model):
    """With a list of prompts another n, or as many others, would compile anew."""
    lists = [[prompt_of(length, seed) for length in (5, 20, 9)] for seed in (0, 1)]
    jaxmoe.sample(model, lists[0], key=jax.random.key(0), n=8, **SHAPES)
    with counted_compilations() as count:
        jaxmoe.sample(model, lists[1], key=jax.random.key(1), n=8, **SHAPES)
        jaxmoe.sample(model, lists[0], key=jax.random.key(0), n=1, **SHAPES)
        jaxmoe.sample(model, lists[0][::-1], key=jax.random.key(0), n=3, **SHAPES)
    assert not count


@pytest.mark.thorough
@pytest.mark.parametrize(
    "policies",
    [
        [
            ExpertSample(),
            ExpertSample(k_keep=1, r=9, tau=0.3),
            ExpertSample(tau=np.float32(2)),
            ExpertSample(k_keep=np.array([1, 2]), tau=np.array([0.1, 0.2])),
        ],
        [TopK(), TopK(1), TopK(np.array([4, 2]))],
        pytest.param([GumbelTopK(), GumbelTopK(0.2)], marks=pytest.mark.slow),
        pytest.param(
            [AdaptiveHead(), AdaptiveHead(0.9, r=8, tau=0.1)], marks=pytest.mark.slow
        ),
    ],
    ids=["expert-sample", "top-k", "gumbel", "adaptive"],
)
def test_a_sweep_over_a_policys_values_compiles_once(model, policies):
    """Each point of a sweep would compile the decode step again."""
    draw(model, policy=policies[0])
    with counted_compilations() as count:
        for policy in policies[1:]:
            draw(model, policy=policy)
    assert not count
