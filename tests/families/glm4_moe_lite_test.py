"""GLM-4.7-Flash: which layers have experts, and what is refused."""

import pytest

from jaxmoe.config import DenseConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.glm4_moe_lite import GLM4_MOE_LITE

CONFIG = dict(GLM4_MOE_LITE.test_configs[0])


def test_released_model_is_read():
    """Its mixers and experts would be those of another model."""
    config = from_hf(dict(GLM4_MOE_LITE.released["glm-4.7-flash"]))
    dense = [isinstance(layer.feed_forward, DenseConfig) for layer in config.layers]
    assert dense == [True] + [False] * 46
    mixer, ff = config.layers[1].mixer, config.layers[1].feed_forward
    assert (mixer.key_dim, mixer.value_dim, mixer.latent_dim) == (256, 256, 512)
    assert (config.norm.eps, mixer.norm.eps) == (1e-5, 1e-6)
    assert mixer.query_latent_dim == 768 and mixer.rope.pairs == "neighbours"
    assert (ff.num_experts, ff.experts_per_token, ff.shared.hidden) == (64, 4, 1536)
    assert ff.scoring.scale == 1.8 and ff.scoring.choice_bias
    assert ff.scoring.groups is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mlp_layer_types": ["dense", "sparse"]}, "mlp_layer_types.*each of 3"),
        ({"mlp_layer_types": ["dense", "sparse", "odd"]}, "mlp_layer_types.*odd"),
        ({"first_k_dense_replace": 2}, "first_k_dense_replace = 2.*mlp_layer_types"),
        ({"attention_bias": True}, "attention_bias = true"),
        ({"topk_method": "greedy"}, "topk_method"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"intermediate_size": None}, "intermediate_size = null"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals(change, told):
    """An attribute would be passed over, and the answers be of another model."""
    with pytest.raises(ValueError, match=told):
        from_hf(CONFIG | change)
