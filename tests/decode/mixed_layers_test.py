"""Layers whose states grow beside layers whose states do not."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import Engine, ExpertSample
from jaxmoe.config import DeltaConfig
from jaxmoe.nn.decoder import empty_states, stack_params, stacks
from tests.tiny import prompt_of, tiny_config, tiny_params

OPTIONS = {"key": jax.random.key(4), "stop_ids": [], "policy": ExpertSample()}


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """Two turns of a recurrent layer and one that attends, scanned."""
    moe = tiny_config().layers[1]
    turn = (replace(moe, mixer=DeltaConfig(2, 4, 8, 12)), moe)
    config = tiny_config(layers=turn * 2)
    return jaxmoe.Model(config, stack_params(config, tiny_params(config)))


def test_each_stack_has_its_own_state(model):
    """A period of the layers would not be one loop over its turns."""
    config, execution = model.config, model.execution
    assert [count for _, count in stacks(config, execution)] == [2, 2]
    states = empty_states(config, execution, rows=3, size=128, dtype="float32")
    assert [state.size for state in states] == [None, 128]


@pytest.mark.slow
def test_an_engine_makes_room_and_refills(model):
    """States that do not grow would be lost where the others do, or stay with a slot
    that another sample begins in."""
    prompts, limits = [prompt_of(200), prompt_of(5, 1), prompt_of(70, 2)], (140, 9, 30)
    with Engine(
        model, slots=4, segment=8, prompts=2, prompt_tokens=1, answer_tokens=1
    ) as engine:
        tickets = [
            engine.submit(prompt, samples=range(3), max_new_tokens=limit, **OPTIONS)
            for prompt, limit in zip(prompts, limits, strict=True)
        ]
        found = {(ticket, i): [] for ticket in tickets for i in range(3)}
        while engine.busy:
            for delta in engine.step():
                found[delta.ticket, delta.sample] += delta.tokens.tolist()
    for ticket, prompt, limit in zip(tickets, prompts, limits, strict=True):
        alone = jaxmoe.sample(
            model, prompt, n=3, slots=4, max_new_tokens=limit, **OPTIONS
        )
        assert [found[ticket, i] for i in range(3)] == alone.tokens.tolist()


@pytest.mark.slow
def test_noisy_prompts_and_streams(model):
    """A sample would begin with the state of another's prompt, which was routed by
    another key."""
    given = {"noisy_prefill": True, "slots": 4, "max_new_tokens": 9, **OPTIONS}
    many = jaxmoe.sample(model, prompt_of(20), n=6, **given)
    few = jaxmoe.sample(model, prompt_of(20), n=2, **given)
    np.testing.assert_array_equal(few.tokens, many.tokens[:2])
    np.testing.assert_array_equal(few.logprobs, many.logprobs[:2])
    streamed = {a.sample: a for a in jaxmoe.stream(model, prompt_of(20), n=6, **given)}
    assert [streamed[i].tokens.tolist() for i in range(6)] == many.tokens.tolist()
    shared = jaxmoe.sample(
        model, prompt_of(20), n=2, **given | {"noisy_prefill": False}
    )
    assert not np.array_equal(shared.logprobs, few.logprobs)
