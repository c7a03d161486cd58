"""Recurrent layers on 8 devices; run by eight_devices_test.py by itself."""

from dataclasses import replace

import numpy as np
import pytest

import jaxmoe
from jaxmoe.config import DeltaConfig
from jaxmoe.nn.decoder import stack_params
from tests.mesh.cases import (
    KEY,
    MODEL,
    PROMPTS,
    check_answers,
    draw,
    on_mesh,
)
from tests.tiny import tiny_params

pytestmark = pytest.mark.optimised  # equal bits

DENSE, MOE = MODEL.config.layers


def mixed_model(key_heads: int) -> jaxmoe.Model:
    """Two turns of a recurrent layer and one that attends, scanned."""
    mixer = DeltaConfig(key_heads, 2 * key_heads, 8, 12)
    turn = (replace(MOE, mixer=mixer), MOE)
    config = replace(MODEL.config, layers=turn * 2)
    return jaxmoe.Model(config, stack_params(config, tiny_params(config)))


DIVIDED = mixed_model(8)


@pytest.mark.parametrize(
    ("shape", "rules"),
    [((8, 1), "auto"), ((1, 8), "auto"), ((2, 4), "auto"), ((2, 4), "expert")],
    ids=str,
)
def test_a_mesh_draws_the_same(shape, rules):
    """A state would lie on one device and its rows be computed on another."""
    divided = on_mesh(DIVIDED, shape, rules)
    keys = divided.layout.rules.key_heads
    assert keys == divided.layout.rules.heads
    prompt = np.resize(PROMPTS[1], 24)
    one, other = (
        np.asarray(jaxmoe.forward(model, prompt)) for model in (DIVIDED, divided)
    )
    np.testing.assert_allclose(one, other, atol=1e-4 * abs(one).max())
    check_answers(draw(DIVIDED, PROMPTS, n=5), divided)


def test_key_heads_that_do_not_divide_are_everywhere():
    """Two of them over eight devices would be refused, or computed in part."""
    few = mixed_model(2)
    divided = on_mesh(few, (1, 8))
    assert divided.layout.rules.key_heads == ()
    check_answers(draw(few, PROMPTS, n=5), divided)


def test_states_grow_beside_those_that_do_not():
    """An engine would give one state the place of another where it makes room."""
    divided = on_mesh(DIVIDED, (2, 4))
    prompt = np.resize(PROMPTS[1], 150)
    options = {"key": KEY, "max_new_tokens": 140, "stop_ids": []}
    expected = draw(DIVIDED, prompt, n=3, **options).tokens
    with jaxmoe.Engine(divided, slots=8, prompt_tokens=1, answer_tokens=1) as engine:
        engine.submit(prompt, samples=range(3), **options)
        found = {i: [] for i in range(3)}
        while engine.busy:
            for delta in engine.step():
                found[delta.sample] += delta.tokens.tolist()
    assert list(found.values()) == expected.tolist()
