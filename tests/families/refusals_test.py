"""What a family's config.json may not say, because it would not be honoured."""

import pytest

from jaxmoe.config import MoEConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.router.scores import Groups

REFUSED = [
    ("bailing_moe", {"use_bias": True}),
    ("bailing_moe", {"norm_head": True}),
    ("bailing_moe", {"norm_softmax": True}),
    ("bailing_moe", {"multi_gate": True}),
    ("bailing_moe", {"use_sliding_window": True}),
    ("bailing_moe", {"n_group": 8}),
    ("bailing_moe", {"score_function": "sigmoid"}),
    ("bailing_moe_v2", {"score_function": "softmax"}),
    ("bailing_moe_v2", {"router_dtype": "bf16"}),
    ("bailing_moe_v2", {"norm_topk_prob": False}),
    ("bailing_moe_v2", {"rotary_dim": 16}),
    ("bailing_moe_v2", {"using_split_qkv_in_self_attention": True}),
    ("bailing_moe_v2", {"moe_shared_expert_intermediate_size": 48}),
    ("bailing_moe_v2", {"moe_router_enable_expert_bias": False}),
    ("bailing_moe_v2", {"topk_group": 5}),
    ("bailing_moe_v2", {"use_bias": True}),
    ("glm4_moe", {"topk_group": 2}),
    ("glm4_moe", {"use_sliding_window": True}),
    ("dots1", {"scoring_func": "softmax"}),
    ("dots1", {"layer_types": ["full_attention", "other", "full_attention"]}),
    ("dots1", {"layer_types": ["sliding_attention"]}),
    ("qwen2", {"qkv_bias": False}),
    ("qwen3", {"num_experts": 8}),
    ("qwen2_moe", {"layer_types": ["sliding_attention"] * 2}),
    ("ernie4_5_moe", {"use_bias": True}),
    ("ernie4_5_moe", {"moe_gate": "hash"}),
    ("ernie4_5_moe", {"moe_layer_start_index": [1, 1]}),
    ("ernie4_5_moe", {"moe_layer_end_index": -2}),
    ("minimax_m2", {"scoring_func": "softmax"}),
    ("minimax_m2", {"attn_type_list": [1, 0, 1]}),
    ("minimax_m2", {"shared_intermediate_size": 8}),
    ("minimax_m2", {"qk_norm_type": "per_head"}),
    ("granitemoe", {"residual_multiplier": 0}),
    ("granitemoe", {"shared_intermediate_size": 8}),
]


@pytest.mark.parametrize(("family", "change"), REFUSED)
def test_attributes_that_are_not_honoured(family, change):
    """The model would answer as another, and nobody know."""
    values = dict(FAMILIES[family].test_configs[0])
    (name,) = change
    with pytest.raises(ValueError, match=rf"{family} model.*\n.*{name} = "):
        from_hf(values | change)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["hidden_act", "architectures", "no_such_attribute"])
def test_attributes_of_every_family(family, name):
    """A checker that a family forgot would let everything through."""
    values = dict(FAMILIES[family].test_configs[0])
    wrong = {"hidden_act": "gelu", "no_such_attribute": 1}.get(name, ["Other"])
    with pytest.raises(ValueError, match=name):
        from_hf(values | {name: wrong})


def test_ling_states_that_it_has_no_biases():
    """Remote code has them where the file is silent."""
    values = dict(FAMILIES["bailing_moe"].test_configs[0])
    del values["use_bias"]
    with pytest.raises(ValueError, match="use_bias"):
        from_hf(values)


@pytest.mark.parametrize(("name", "word"), [("n_group", 3), ("topk_group", 1)])
def test_groups_that_do_not_divide(name, word):
    """Experts would be cut off, or fewer be allowed than a token has."""
    values = dict(FAMILIES["bailing_moe_v2"].test_configs[0]) | {name: word}
    if name == "topk_group":
        values["num_experts_per_tok"] = 5
    with pytest.raises(ValueError, match=name):
        from_hf(values)


def test_groups_and_scale_are_read():
    """They would do nothing."""
    config = from_hf(dict(FAMILIES["bailing_moe_v2"].released["ling-mini-2.0"]))
    moe = config.layers[1].feed_forward
    assert isinstance(moe, MoEConfig)
    assert (moe.scoring.groups, moe.scoring.scale) == (Groups(8, 4, 2), 2.5)
    assert config.moe_layers == tuple(range(1, 20))
    assert config.layers[0].mixer.rope.width == 64
