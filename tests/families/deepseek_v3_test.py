"""DeepSeek-V3, Moonlight, Kimi-K2: released shapes, defaults, and what is left out."""

import jax.numpy as jnp
import pytest

from convert import convert, export
from jaxmoe.checkpoints.source import open_source
from jaxmoe.config import DenseConfig, MoEConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.deepseek_v3 import DEEPSEEK_V3, KIMI_K2
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.router.scores import Groups, SigmoidScores
from tests.hugging_face import make_tensors, write_checkpoint

CONFIG, OTHER, _ = (dict(values) for values in DEEPSEEK_V3.test_configs)
RELEASED = {**DEEPSEEK_V3.released, **KIMI_K2.released}


@pytest.mark.parametrize(
    ("name", "billions", "dense", "experts", "groups", "scale"),
    [
        ("deepseek-v3", 671.0, 3, 256, Groups(8, 4, best=2), 0.1352338),
        ("moonlight-16b-a3b", 15.96, 1, 64, None, 192**-0.5),
        ("kimi-k2", 1026.4, 1, 384, None, 0.1308608),
    ],
)
def test_released_shapes(name, billions, dense, experts, groups, scale):
    """A plan would be of another model."""
    config = from_hf(dict(RELEASED[name]))
    size = sum(leaf.size for leaf in abstract_params(config).values())
    assert size == pytest.approx(billions * 1e9, rel=1e-3)
    assert (config.moe_layers[0], config.num_experts) == (dense, experts)
    mixer, mixture = config.layers[-1].mixer, config.layers[-1].feed_forward
    assert mixer.scale == pytest.approx(scale, rel=1e-6)
    assert (mixer.norm.eps, mixer.rope.pairs) == (1e-6, "neighbours")
    assert mixture.scoring.groups == groups and mixture.scoring.choice_bias


def test_absent_attributes_take_transformers_defaults():
    """Groups, shared experts and scale of the large model, where a file is silent."""
    names = {"n_group", "topk_group", "n_routed_experts", "first_k_dense_replace"}
    names |= {"num_experts_per_tok", "n_shared_experts", "num_hidden_layers"}
    silent = {n: v for n, v in CONFIG.items() if n not in names}
    layers = from_hf(silent | {"num_hidden_layers": 4}).layers
    assert [type(c.feed_forward) for c in layers] == [*[DenseConfig] * 3, MoEConfig]
    moe = layers[-1].feed_forward
    assert isinstance(moe, MoEConfig) and isinstance(moe.scoring, SigmoidScores)
    assert (moe.num_experts, moe.experts_per_token) == (256, 8)
    assert (moe.shared.hidden, moe.scoring.scale) == (40, 2.5)
    assert (moe.scoring.groups, moe.scoring.normalise) == (Groups(8, 4, 2), True)
    assert from_hf(OTHER).layers[0].mixer.rope.pairs == "halves"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"scoring_func": "softmax"}, 'scoring_func = "softmax"'),
        ({"topk_method": "greedy"}, 'topk_method = "greedy"'),
        ({"moe_layer_freq": 2}, "moe_layer_freq = 2"),
        ({"attention_bias": True}, "attention_bias = true"),
        ({"rope_interleave": 1}, "rope_interleave = 1"),
        ({"architectures": ["DeepseekV2ForCausalLM"]}, "architectures"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals(change, found):
    """An attribute would be passed over, and the answers be of another model."""
    with pytest.raises(ValueError, match=found):
        from_hf(CONFIG | change)


def test_layers_that_predict_further_tokens_are_left_out(tmp_path):
    """They would be refused as of another model, or dropped without a word."""
    config = CONFIG | {"num_nextn_predict_layers": 1}
    tensors = make_tensors(config, jnp.bfloat16)
    last, after = "model.layers.2.", "model.layers.3."
    more = {n.replace(last, after): t for n, t in tensors.items() if last in n}
    more |= {after + "eh_proj.weight": jnp.zeros((64, 128), jnp.bfloat16)}
    names = ("embed_tokens", "enorm", "hnorm", "shared_head.norm", "shared_head.head")
    more |= {after + f"{n}.weight": jnp.zeros(64, jnp.bfloat16) for n in names}
    files = write_checkpoint(tmp_path / "hf", config, tensors | more)
    with pytest.warns(UserWarning, match=f"{len(more)} tensors, {after}"):
        convert(files, tmp_path / "ckpt")
    assert open_source(files).digest() == open_source(tmp_path / "ckpt").digest()
    with pytest.warns(UserWarning, match=f"{len(more)} tensors, {after}"):
        export(tmp_path / "ckpt", tmp_path / "again")
    plain = write_checkpoint(tmp_path / "plain", config, tensors)
    weights = "model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (plain / weights).read_bytes()
