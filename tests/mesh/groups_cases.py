"""Latents, groups of experts and a shared expert at once, as in DeepSeek-V3, on 8
devices; run by eight_devices_test.py by itself."""

from dataclasses import replace

import numpy as np
import pytest

import jaxmoe
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import stack_params
from tests.mesh.cases import check_answers, draw, held_bytes, on_mesh
from tests.tiny import prompt_of, tiny_params

pytestmark = pytest.mark.optimised  # equal bits

# Wide experts: of a tiny model they are few of its bytes, of a released one most.
VALUES = dict(FAMILIES["deepseek_v3"].test_configs[0]) | {"moe_intermediate_size": 320}
CONFIG = replace(from_hf(VALUES), stop_ids=())
MODEL = jaxmoe.Model(CONFIG, stack_params(CONFIG, tiny_params(CONFIG)))
PROMPTS = [prompt_of(length, length) % CONFIG.vocab_size for length in (9, 5)]
MESHES = pytest.mark.parametrize("shape", [(8, 1), (1, 8), (2, 4)], ids=str)


@MESHES
def test_a_mesh_draws_the_same(shape):
    """Groups would be chosen of the experts that lie here, or a latent be divided."""
    divided = on_mesh(MODEL, shape, "expert")
    prompt = np.resize(PROMPTS[0], 24)
    one, other = (
        np.asarray(jaxmoe.forward(model, prompt)) for model in (MODEL, divided)
    )
    np.testing.assert_allclose(one, other, atol=1e-4 * abs(one).max())
    check_answers(draw(MODEL, PROMPTS, n=5), divided, PROMPTS)


@MESHES
def test_each_device_holds_its_share(shape):
    """A model that fits on eight devices would need more of them."""
    divided = on_mesh(MODEL, shape, "expert")
    total = sum(weight.nbytes for weight in MODEL.params.values())
    assert max(held_bytes(divided.params).values()) <= 1.15 * total / 8
