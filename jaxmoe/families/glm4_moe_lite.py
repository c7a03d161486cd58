"""GLM-4.7-Flash (`glm4_moe_lite`): config.json, tensors, released sizes.

DeepSeek-V3's latent attention and experts, without groups of them by default;
`mlp_layer_types` names the layers that have none.
"""

from typing import Any

from jaxmoe.config import DenseConfig, LayerConfig, ModelConfig
from jaxmoe.families.attributes import COUNT, FLAG, NAMES, POSITIVE, Attributes
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import check_rest, read_routed
from jaxmoe.families.common_tensors import BOOKKEEPING, LAYER
from jaxmoe.families.deepseek_v3 import IGNORED, NEUTRAL, TENSORS
from jaxmoe.families.latent_attention import read_latent

ARCHITECTURE = "Glm4MoeLiteForCausalLM"
DENSE, SPARSE = "dense", "sparse"
"""The entries of `mlp_layer_types`."""

DEFAULTS: dict[str, Any] = {
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "routed_scaling_factor": 1.8,
    "v_head_dim": 256,
}
"""What transformers takes where config.json is silent of these."""


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    a.left = DEFAULTS | a.left
    interleaved = a.take("rope_interleave", FLAG, True, True)
    pairs = "neighbours" if interleaved else "halves"
    c, mixer = read_latent(a, g, pairs=pairs, max_length=202752, eps=1e-5, eos=1)
    moe = read_routed(a, normalise=True)
    kinds = _read_kinds(a, c.num_layers)
    missing = {} if DENSE in kinds else {"default": 0, "null": 0}
    hidden = a.take("intermediate_size", POSITIVE, **missing)
    check_rest(a, "glm4_moe_lite", ARCHITECTURE, ignored=IGNORED, neutral=NEUTRAL)
    sparse = moe()
    ffs = (DenseConfig(hidden) if kind == DENSE else sparse for kind in kinds)
    return c.model("glm4_moe_lite", [LayerConfig(mixer(), ff) for ff in ffs])


def _read_kinds(a: Attributes, num_layers: int) -> list[str]:
    """What each layer's feed-forward is; dense in the first where nothing says so.

    Released files have `first_k_dense_replace`, which transformers does not read.
    """
    first = [DENSE] + [SPARSE] * (num_layers - 1)
    kinds = a.take("mlp_layer_types", NAMES, first, first)
    if len(kinds) != num_layers or not {DENSE, SPARSE}.issuperset(kinds):
        wanted = f'"{DENSE}" or "{SPARSE}" for each of {num_layers} layers'
        a.wrong("mlp_layer_types", kinds, wanted)
        return first
    count = a.take("first_k_dense_replace", COUNT, None, None)
    if count is not None and kinds != [DENSE] * count + [SPARSE] * (num_layers - count):
        a.wrong("first_k_dense_replace", count, "what mlp_layer_types says")
    return kinds


_FLASH: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "eos_token_id": [154820, 154827, 154829],
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 10240,
    "kv_lora_rank": 512,
    "max_position_embeddings": 202752,
    "model_type": "glm4_moe_lite",
    "moe_intermediate_size": 1536,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 20,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 47,
    "num_key_value_heads": 20,
    "num_nextn_predict_layers": 1,
    "pad_token_id": 154820,
    "partial_rotary_factor": 1.0,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "routed_scaling_factor": 1.8,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "v_head_dim": 256,
    "vocab_size": 154880,
}
"""Sizes of zai-org/GLM-4.7-Flash, which are transformers' defaults."""

_TEST: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "glm4_moe_lite",
    "eos_token_id": 7,
    "hidden_size": 64,
    "intermediate_size": 80,
    "kv_lora_rank": 32,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 40,
    "n_routed_experts": 16,
    "num_attention_heads": 8,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 8,
    "pad_token_id": 1,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 24,
    "vocab_size": 96,
}

GLM4_MOE_LITE = Family(
    name="glm4_moe_lite",
    model_type="glm4_moe_lite",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    beyond=(LAYER,),
    tied=(("head.weight", "embed.weight"),),
    released={"glm-4.7-flash": _FLASH},
    test_configs=(
        _TEST,
        _TEST
        | {"mlp_layer_types": [SPARSE, DENSE, SPARSE], "n_group": 4, "topk_group": 2}
        | {"q_lora_rank": None, "rope_interleave": False, "n_shared_experts": 2}
        | {"norm_topk_prob": False, "tie_word_embeddings": True},
    ),
)
