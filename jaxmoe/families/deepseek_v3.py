"""DeepSeek-V3 (arXiv 2412.19437), Moonlight, Kimi-K2: config, tensors, sizes.

As DeepSeek-V2, but experts are scored by sigmoids with a bias of choice, and groups by
their best two. Layers after the last, which predict further tokens, are left out.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.families.attributes import FLAG, Attributes
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import check_rest, dense_first, read_routed, stacked
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    CHOICE_BIAS,
    DENSE,
    EXPERTS,
    FRAME,
    LATENTS,
    LAYER,
    shared_expert,
)
from jaxmoe.families.latent_attention import IGNORED as LATENT_IGNORED
from jaxmoe.families.latent_attention import read_latent

ARCHITECTURE = "DeepseekV3ForCausalLM"
DEFAULTS: dict[str, Any] = {
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "routed_scaling_factor": 2.5,
    "topk_group": 4,
}
"""What transformers takes where config.json is silent of the mixture."""

IGNORED = LATENT_IGNORED | {
    "layers after the last, which predict further tokens": "num_nextn_predict_layers "
    "num_mtp_layers"
}
NEUTRAL: dict[str, Any] = {
    "attention_bias": False,
    "moe_layer_freq": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
"""Attributes accepted at this value. transformers reads none of the last three."""


def _read_config(family: str, a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    a.left = DEFAULTS | a.left
    interleaved = a.take("rope_interleave", FLAG, True, True)
    pairs = "neighbours" if interleaved else "halves"
    c, mixer = read_latent(a, g, pairs=pairs, max_length=4096, eos=1)
    moe = read_routed(a, normalise=True)
    first, dense = dense_first(a, c.num_layers, 3)
    check_rest(a, family, ARCHITECTURE, ignored=IGNORED, neutral=NEUTRAL)
    return c.model(family, stacked([mixer()] * c.num_layers, first, dense, moe()))


# -- tensors -------------------------------------------------------------------

TENSORS = (
    *FRAME,
    *LATENTS,
    *EXPERTS,
    *CHOICE_BIAS,
    *shared_expert("shared_experts"),
    *DENSE,
)

# -- sizes ---------------------------------------------------------------------

_YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 40,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
    "type": "yarn",
}

FP8: dict[str, Any] = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [128, 128],
}
"""`quantization_config` of deepseek-ai/DeepSeek-V3 and moonshotai/Kimi-K2-Instruct."""

RELEASED: dict[str, dict[str, Any]] = {
    "deepseek-v3": {
        "architectures": [ARCHITECTURE],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "ep_size": 1,
        "first_k_dense_replace": 3,
        "hidden_act": "silu",
        "hidden_size": 7168,
        "initializer_range": 0.02,
        "intermediate_size": 18432,
        "kv_lora_rank": 512,
        "max_position_embeddings": 163840,
        "model_type": "deepseek_v3",
        "moe_intermediate_size": 2048,
        "moe_layer_freq": 1,
        "n_group": 8,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_attention_heads": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 61,
        "num_key_value_heads": 128,
        "num_nextn_predict_layers": 1,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "rms_norm_eps": 1e-06,
        "rope_scaling": _YARN,
        "rope_theta": 10000,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "tie_word_embeddings": False,
        "topk_group": 4,
        "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "v_head_dim": 128,
        "vocab_size": 129280,
    },
}
RELEASED["moonlight-16b-a3b"] = RELEASED["deepseek-v3"] | {
    "bos_token_id": 163584,
    "eos_token_id": 163586,
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 11264,
    "max_position_embeddings": 8192,
    "moe_intermediate_size": 1408,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "num_nextn_predict_layers": 0,
    "q_lora_rank": None,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 50000.0,
    "routed_scaling_factor": 2.446,
    "topk_group": 1,
    "vocab_size": 163840,
}
RELEASED["deepseek-v3-fp8"] = RELEASED["deepseek-v3"] | {"quantization_config": FP8}
"""config.json of deepseek-ai/DeepSeek-V3, with and without its quantisation, and of
moonshotai/Moonlight-16B-A3B-Instruct."""

_KIMI_K2 = RELEASED["deepseek-v3"] | {
    "bos_token_id": 163584,
    "eos_token_id": 163585,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 131072,
    "model_type": "kimi_k2",
    "n_group": 1,
    "n_routed_experts": 384,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "num_nextn_predict_layers": 0,
    "pad_token_id": 163839,
    "rope_scaling": _YARN | {"beta_fast": 1.0, "beta_slow": 1.0, "factor": 32.0},
    "rope_theta": 50000.0,
    "routed_scaling_factor": 2.827,
    "topk_group": 1,
    "vocab_size": 163840,
}
"""config.json of moonshotai/Kimi-K2-Instruct, without its quantisation."""

_TEST: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "deepseek_v3",
    "eos_token_id": 7,
    "first_k_dense_replace": 1,
    "hidden_size": 64,
    "intermediate_size": 80,
    "kv_lora_rank": 32,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 40,
    "n_group": 4,
    "n_routed_experts": 16,
    "num_attention_heads": 8,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 0,
    "pad_token_id": 1,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "rms_norm_eps": 1e-5,
    "rope_scaling": _YARN | {"original_max_position_embeddings": 64},
    "topk_group": 2,
    "v_head_dim": 12,
    "vocab_size": 96,
}

DEEPSEEK_V3 = Family(
    name="deepseek_v3",
    model_type="deepseek_v3",
    architectures=(ARCHITECTURE,),
    read_config=partial(_read_config, "deepseek_v3"),
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    beyond=(LAYER,),
    tied=(("head.weight", "embed.weight"),),
    formats=("FP8",),
    released=RELEASED,
    test_configs=(
        _TEST,
        _TEST
        | {"n_group": 1, "n_shared_experts": 2, "norm_topk_prob": False}
        | {"q_lora_rank": None, "rope_interleave": False, "topk_group": 1},
        _TEST
        | {"intermediate_size": 128, "moe_intermediate_size": 64}
        | {"quantization_config": FP8 | {"weight_block_size": [4, 4]}},
    ),
)

KIMI_K2 = replace(
    DEEPSEEK_V3,
    name="kimi_k2",
    model_type="kimi_k2",
    read_config=partial(_read_config, "kimi_k2"),
    formats=("FP8",),
    released={
        "kimi-k2": _KIMI_K2,
        "kimi-k2-fp8": _KIMI_K2 | {"quantization_config": FP8},
    },
    test_configs=(_TEST | {"model_type": "kimi_k2", "n_group": 1, "topk_group": 1},),
)
