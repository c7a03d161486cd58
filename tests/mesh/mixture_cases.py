"""Biases and shared experts on 8 devices; run by eight_devices_test.py by itself."""

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


@pytest.mark.parametrize(
    ("shape", "rules"),
    [((2, 4), "auto"), ((2, 4), "tensor"), ((8, 1), "expert"), ((2, 4), BOTH)],
    ids=["auto", "tensor", "expert", "both"],
)
def test_a_mesh_computes_the_same_mixture(shape, rules):
    """The bias of a divided expert would be added by each of its parts, that of
    another expert here, or the shared expert's parts left apart."""
    divided = on_mesh(BIASED, shape, rules)
    prompt = np.resize(PROMPTS[1], 24)
    one, other = (
        np.asarray(jaxmoe.forward(model, prompt)) for model in (BIASED, divided)
    )
    np.testing.assert_allclose(one, other, atol=1e-4 * abs(one).max())
    short = PROMPTS[::2]  # of one padded length, and so one pass to compile
    check_answers(draw(BIASED, short, n=5), divided, short)
