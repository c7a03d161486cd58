"""Biases and shared experts on 8 devices; run by eight_devices_test.py by itself."""

from dataclasses import replace

import numpy as np
import pytest

import jaxmoe
from jaxmoe.sharding.rules import Rules
from tests.mesh.cases import MODEL, PROMPTS, check_answers, draw, on_mesh
from tests.tiny import every_part, tiny_params

BOTH = Rules(
    slots=("data",),
    heads=("model",),
    vocab=("model",),
    mlp=("model",),
    experts=("data",),
    expert_mlp=("model",),
)
"""Whole experts over 2, the insides of each over 4, its rows over 2."""


CONFIG = every_part(MODEL.config)
BIASED = jaxmoe.Model(CONFIG, tiny_params(CONFIG))


def inputs_first() -> jaxmoe.Model:
    """The same parts, the experts' weights in the other order."""
    dense, mixture = CONFIG.layers
    experts = replace(mixture.feed_forward, weights="inputs_first")
    config = replace(CONFIG, layers=(dense, replace(mixture, feed_forward=experts)))
    return jaxmoe.Model(config, tiny_params(config))


@pytest.mark.parametrize(
    ("make", "shape", "rules"),
    [
        (lambda: BIASED, (2, 4), "auto"),
        (lambda: BIASED, (2, 4), "tensor"),
        (lambda: BIASED, (8, 1), "expert"),
        (lambda: BIASED, (2, 4), BOTH),
        (inputs_first, (2, 4), BOTH),
    ],
    ids=["auto", "tensor", "expert", "both", "inputs first"],
)
def test_a_mesh_computes_the_same_mixture(make, shape, rules):
    """The bias of a divided expert would be added by each of its parts, that of
    another expert here, or the shared expert's parts left apart; a sink or a gate
    would be that of another device's head."""
    alone = make()
    divided = on_mesh(alone, shape, rules)
    prompt = np.resize(PROMPTS[1], 24)
    one, other = (
        np.asarray(jaxmoe.forward(model, prompt)) for model in (alone, divided)
    )
    np.testing.assert_allclose(one, other, atol=1e-4 * abs(one).max())
    check_answers(draw(alone, PROMPTS, n=5), divided)
