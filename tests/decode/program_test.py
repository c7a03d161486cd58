"""Programs of scanned layers: their compiler options change no number."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe import execution
from jaxmoe.decode import program
from jaxmoe.nn.decoder import stack_params
from jaxmoe.ops import emitters
from jaxmoe.router.policies import for_model
from tests.tiny import prompt_of, tiny_model

pytestmark = [pytest.mark.optimised, pytest.mark.thorough]

OPTIONS = {"n": 3, "max_new_tokens": 12, "return_routes": True}


@pytest.fixture(scope="module")
def model():
    """A dense layer and three alike, which are scanned."""
    small = tiny_model()
    dense, moe = small.config.layers
    small = tiny_model(layers=(dense, moe, moe, moe))
    return replace(small, params=stack_params(small.config, small.params))


def draw(model) -> list[np.ndarray]:
    """Answers, and logits of a pass over a whole sequence."""
    out = jaxmoe.sample(model, prompt_of(20), key=jax.random.key(0), **OPTIONS)
    logits = jaxmoe.forward(model, prompt_of(20))
    return [out.tokens, out.logprobs, out.routes, np.asarray(logits)]


def test_options_change_no_bit(model, monkeypatch):
    """A sample would depend on the version of XLA that knows an option."""
    if emitters.by_calls():
        pytest.skip("this version of XLA knows none that decides of bits")
    monkeypatch.setattr(execution, "lanes_found", lambda: execution.LanesFound(1, "-"))
    assert program.compiler_options(model.execution)
    found = draw(model)
    # As XLA chooses by itself; the flags of tests have it choose otherwise.
    newer = (("xla_cpu_use_fusion_emitters", True),)
    monkeypatch.setattr(program, "compiler_options", lambda execution: newer)
    for a, b in zip(found, draw(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_vectorised_loop_changes_no_token(model, monkeypatch):
    """Answers would depend on the machine that gives them; its sums may, a little."""
    assert model.execution.experts == "lanes"
    found = draw(model)
    monkeypatch.setattr(execution, "lanes_found", lambda: execution.LanesFound(1, "-"))
    tokens, logprobs, routes, logits = draw(model)
    np.testing.assert_array_equal(found[0], tokens)
    np.testing.assert_array_equal(found[2], routes)
    np.testing.assert_allclose(found[1], logprobs, atol=1e-4)
    np.testing.assert_allclose(found[3], logits, atol=1e-4 * abs(logits).max())


@pytest.mark.parametrize("closes_over", [False, True])
def test_within_a_jit_of_ones_own(model, closes_over):
    """JAX refuses compiler options there, and a user's program would not compile."""
    tokens, keys = prompt_of(20), jaxmoe.keys.sample_keys(jax.random.key(0), 3)

    def answers(params):
        return jaxmoe.generate(
            model.config,
            model.params if closes_over else params,
            jnp.asarray(tokens, jnp.int32),
            20,
            keys,
            policy=jaxmoe.TopK(),
            sampler=jaxmoe.TokenSampler(0),
            max_new_tokens=12,
            execution=model.execution,
        ).tokens

    assert jax.jit(answers).lower(model.params).out_info.shape == (3, 12)


def test_lower_gives_the_program_of_a_call(model, untyped):
    """Benchmarks would measure another one.

    Untyped, because `lower` rebuilds policies with descriptions in place of arrays.
    """
    made = jaxmoe.prefill.lower(
        model.config,
        model.params,
        np.zeros((1, 16), np.int32),
        np.array([5], np.int32),
        for_model(jaxmoe.TopK(), model.config),
        execution=model.execution,
    )
    assert made.compile().memory_analysis() is not None
