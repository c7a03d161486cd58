"""DeepSeek-V2: released shapes, defaults, and what is refused."""

import math

import pytest

from jaxmoe.config import LatentConfig, MoEConfig, SharedConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.deepseek_v2 import DEEPSEEK_V2
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.nn.mixers import held
from jaxmoe.planning import Load, plan_for
from jaxmoe.router.scores import Groups

LITE, LARGE = (from_hf(dict(values)) for values in DEEPSEEK_V2.released.values())
CONFIG, GROUPED, _ = (dict(values) for values in DEEPSEEK_V2.test_configs)


def mixer_of(config: dict) -> LatentConfig:
    """That of the first layer."""
    mixer = from_hf(config).layers[0].mixer
    assert isinstance(mixer, LatentConfig)
    return mixer


def without(*names: str) -> dict:
    """The first test configuration without some attributes."""
    return {name: value for name, value in CONFIG.items() if name not in names}


@pytest.mark.parametrize(
    ("config", "billions", "layers", "dense", "queries", "groups", "scale"),
    [
        (LITE, 15.7, 27, 1, None, None, 0.1147214),
        (LARGE, 235.7, 60, 1, 1536, Groups(8, 3, best=1), 0.1352338),
    ],
    ids=["lite", "large"],
)
def test_released_shapes(config, billions, layers, dense, queries, groups, scale):
    """A plan would be of another model; m squared is 1.59 at 0.707, 1.87 at 1."""
    size = sum(leaf.size for leaf in abstract_params(config).values())
    assert size == pytest.approx(billions * 1e9, rel=1e-3)
    assert (config.num_layers, config.moe_layers[0]) == (layers, dense)
    assert (config.context_length, config.stop_ids) == (163840, (100001,))
    mixer, mixture = config.layers[-1].mixer, config.layers[-1].feed_forward
    assert mixer.query_latent_dim == queries
    assert mixer.scale == pytest.approx(scale, rel=1e-6)
    assert mixer.rope.attention_factor == 1 and mixer.rope.pairs == "neighbours"
    scoring = mixture.scoring
    assert (scoring.groups, scoring.normalise) == (groups, False)
    assert (scoring.scale, scoring.weight_type) == (16 if groups else 1, "float32")
    assert mixture.shared == SharedConfig(2 * mixture.hidden)


def test_a_token_is_576_values_a_layer():
    """Plans would have keys and values of every head, which are never cached; or a part
    of the latents on each device, where all heads read them whole."""
    for shape, heads in (((1, 1), 1), ((1, 8), 8)):
        layout = plan_for(LITE, shape, Load(4, 3000, 200), "tensor").layout
        assert layout.size(layout.rules.heads) == heads
        assert held(LITE, layout, "bfloat16") == (27 * 576 * 2, 0)


def test_absent_attributes_take_transformers_defaults():
    """Absent is not null: a latent of queries would be taken for none."""
    assert mixer_of(without("q_lora_rank")).query_latent_dim == 1536
    assert mixer_of(CONFIG).query_latent_dim is None
    names = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    plain = without(*names, "rope_scaling", "first_k_dense_replace")
    mixer = mixer_of(plain)
    assert (mixer.latent_dim, mixer.key_dim, mixer.value_dim) == (512, 192, 128)
    assert mixer.scale == 192**-0.5
    config = from_hf(plain)
    assert config.moe_layers == (0, 1, 2)
    assert config.norm.eps == 1e-5 and mixer.norm.eps == 1e-6
    moe = from_hf(without("n_shared_experts")).layers[1].feed_forward
    assert isinstance(moe, MoEConfig) and moe.shared == SharedConfig(72)


def test_the_square_of_m_follows_mscale_all_dim():
    """Position 0 would be right, and no other."""
    m = 0.1 * 0.707 * math.log(40) + 1
    assert mixer_of(CONFIG).scale == pytest.approx(24**-0.5 * m * m)
    rope = {n: v for n, v in CONFIG["rope_scaling"].items() if "mscale" not in n}
    mixer = mixer_of(CONFIG | {"rope_scaling": rope})
    assert mixer.scale == 24**-0.5
    assert mixer.rope.attention_factor == pytest.approx(0.1 * math.log(40) + 1)


def test_what_transformers_writes_beside():
    """A file that transformers saved would be refused."""
    more = {"head_dim": 8, "qk_head_dim": 24, "moe_layer_freq": 1, "auto_map": {}}
    more |= {"scoring_func": "softmax", "norm_topk_prob": False, "ep_size": 1}
    assert from_hf(CONFIG | more) == from_hf(CONFIG)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"norm_topk_prob": True}, "norm_topk_prob = true"),
        ({"scoring_func": "sigmoid"}, 'scoring_func = "sigmoid"'),
        ({"moe_layer_freq": 2}, "moe_layer_freq = 2"),
        ({"rope_interleave": False}, "rope_interleave = false"),
        ({"attention_bias": True}, "attention_bias = true"),
        ({"topk_method": "noaux_tc"}, 'topk_method = "noaux_tc" .expected "greedy"'),
        ({"topk_method": "group_limited_greedy"}, "n_group = null .*topk_group = null"),
        ({"num_key_value_heads": 2}, "num_key_value_heads = 2 .expected 8"),
        ({"head_dim": 24}, "head_dim = 24 .expected 8, as qk_rope_head_dim"),
        ({"qk_head_dim": 8}, "qk_head_dim = 8 .expected 24"),
        ({"qk_rope_head_dim": 0}, "qk_rope_head_dim = 0"),
        ({"rope_scaling": "yarn"}, 'rope_scaling = "yarn"'),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8.*take the release of"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals(change, found):
    """An attribute would be passed over, and the answers be of another model."""
    with pytest.raises(ValueError, match=found):
        from_hf(CONFIG | change)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"n_group": 3}, "16 experts must make 3 equal groups"),
        ({"topk_group": 5}, "topk_group.*at most n_group = 4"),
        ({"num_experts_per_tok": 9}, "2 groups of 4 experts must hold 9"),
        ({"qk_rope_head_dim": 7}, "even number"),
    ],
)
def test_numbers_that_do_not_go_together(change, found):
    """Groups would overlap, or hold too few experts; a pair would lack its half."""
    with pytest.raises(ValueError, match=found):
        from_hf(GROUPED | change)


def test_dense_layers_need_their_width():
    """A missing width would be taken for another."""
    with pytest.raises(ValueError, match="missing.*: intermediate_size"):
        from_hf(without("intermediate_size"))
    rest = without("intermediate_size", "first_k_dense_replace")
    assert from_hf(rest).moe_layers == (0, 1, 2)
