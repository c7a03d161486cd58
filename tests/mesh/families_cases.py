"""Every family on 8 devices; run by eight_devices_test.py by itself."""

from dataclasses import replace

import numpy as np
import pytest

import jaxmoe
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import stack_params
from tests.mesh.cases import PROMPTS, check_answers, draw, on_mesh
from tests.tiny import tiny_params

OTHERS = {
    ("olmoe", 1): "biases beside norms of whole projections",
    ("olmoe", 2): "heads that lie on several devices under such norms",
    ("deepseek_v2", 1): "latents of queries, and groups",
    ("minimax_m2", 1): "blocks of FP8",
    ("deepseek_v3", 2): "latents' blocks of FP8",
}
"""What a family's first configuration lacks and a mesh has to divide."""
CASES = [
    *((name, 0) for name, family in FAMILIES.items() if not family.scores),
    *OTHERS,
]
RECURRENT = ("qwen3_next", "qwen3_5_moe")
"""Where rounding adds up, as tests/families/promises_test.py allows for too: weights
that differ in their last bit move a log-probability of qwen3_next by 0.05 on one
device, where a mesh moves it by 0.0014."""


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def alone(request) -> tuple[jaxmoe.Model, list[jaxmoe.Samples]]:
    """A family's model on one device, and what it answers."""
    name, number = request.param
    eight = {"num_attention_heads": 8}  # what heads are divided over
    config = from_hf(dict(FAMILIES[name].test_configs[number]) | eight)
    config = replace(config, stop_ids=())
    model = jaxmoe.Model(config, stack_params(config, tiny_params(config)))
    return model, draw(model, prompts_of(model), n=5)


def prompts_of(model: jaxmoe.Model) -> list[np.ndarray]:
    """The prompts that all tests share, within the vocabulary."""
    return [prompt % model.config.vocab_size for prompt in PROMPTS]


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (2, 4)], ids=str)
def test_a_mesh_draws_the_same(alone, shape):
    """A device would norm queries by its own heads alone, count heads twice that lie
    on several devices, or have a part of the latents, which all heads read."""
    model, answers = alone
    atol = 5e-3 if model.config.family in RECURRENT else 1e-4
    check_answers(answers, on_mesh(model, shape), prompts_of(model), atol)
