"""Biases and shared experts on 8 devices; run by eight_devices_test.py by itself."""

from dataclasses import replace

import numpy as np
import pytest

import jaxmoe
from jaxmoe.nn.decoder import quantise_params
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


QUANTISED = jaxmoe.Model(*quantise_params(CONFIG, BIASED.params))


def inputs_first() -> jaxmoe.Model:
    """The same parts, the experts' weights in the other order."""
    dense, mixture = CONFIG.layers
    experts = replace(mixture.feed_forward, weights="inputs_first")
    config = replace(CONFIG, layers=(dense, replace(mixture, feed_forward=experts)))
    return jaxmoe.Model(config, tiny_params(config))


@pytest.mark.parametrize(
    ("model", "shape", "rules"),
    [
        (BIASED, (2, 4), "auto"),
        (BIASED, (2, 4), "tensor"),
        (BIASED, (8, 1), "expert"),
        (BIASED, (2, 4), BOTH),
        (QUANTISED, (2, 4), BOTH),
        (QUANTISED, (1, 8), "tensor"),
        (inputs_first(), (2, 4), BOTH),
    ],
    ids=["auto", "tensor", "expert", "both", "int8-both", "int8-tensor", "turned"],
)
def test_a_mesh_computes_the_same_mixture(model, shape, rules):
    """The bias of a divided expert would be added by each of its parts, that of
    another expert here, or the shared expert's parts left apart; scales would lie with
    the inputs that their integers are divided by; a sink or a gate would be that of
    another device's head."""
    divided = on_mesh(model, shape, rules)
    prompt = np.resize(PROMPTS[1], 24)
    one, other = (
        np.asarray(jaxmoe.forward(model, prompt)) for model in (model, divided)
    )
    np.testing.assert_allclose(one, other, atol=1e-4 * abs(one).max())
    short = PROMPTS[::2]  # of one padded length, and so one pass to compile
    check_answers(draw(model, short, n=5), divided, short)
