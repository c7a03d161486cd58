"""GLM-4.5 and GLM-4.6 (`glm4_moe`): config.json, tensors, released sizes.

Half of each head is turned; the layers after the last, which predict further tokens,
are left out.
"""

from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.families.attributes import FLAG, Attributes
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import (
    check_rest,
    dense_first,
    read_common,
    read_routed,
    stacked,
)
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    CHOICE_BIAS,
    DENSE,
    EXPERTS,
    FRAME,
    HEAD_NORMS,
    LAYER,
    PROJECTIONS,
    shared_expert,
)

ARCHITECTURE = "Glm4MoeForCausalLM"
IGNORED = {
    "layers after the last, which predict further tokens": "num_nextn_predict_layers "
    "num_mtp_layers"
}


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    c = read_common(a, g, max_length=131072, eps=1e-5, partial=0.5, kv_heads=8)
    bias = a.take("attention_bias", FLAG, False)
    norm = "head" if a.take("use_qk_norm", FLAG, False) else None
    moe = read_routed(a, normalise=True, shared=1)
    first, dense = dense_first(a, c.num_layers, 1)
    check_rest(a, "glm4_moe", ARCHITECTURE, ignored=IGNORED)
    mixer = c.attention(qkv_bias=bias, qk_norm=norm)
    return c.model("glm4_moe", stacked([mixer] * c.num_layers, first, dense, moe()))


TENSORS = (
    *FRAME,
    *PROJECTIONS,
    *HEAD_NORMS,
    *EXPERTS,
    *CHOICE_BIAS,
    *shared_expert("shared_experts"),
    *DENSE,
)

_AIR: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "glm4_moe",
    "attention_bias": True,
    "eos_token_id": [151329, 151336, 151338],
    "first_k_dense_replace": 1,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "max_position_embeddings": 131072,
    "moe_intermediate_size": 1408,
    "n_group": 1,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 96,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 46,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 1,
    "pad_token_id": 151329,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "routed_scaling_factor": 1.0,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "use_qk_norm": False,
    "vocab_size": 151552,
}
_LARGE = _AIR | {
    "first_k_dense_replace": 3,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "num_hidden_layers": 92,
    "routed_scaling_factor": 2.5,
    "use_qk_norm": True,
}

_TEST = {
    "architectures": [ARCHITECTURE],
    "model_type": "glm4_moe",
    "vocab_size": 97,
    "hidden_size": 64,
    "head_dim": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "attention_bias": True,
    "use_qk_norm": True,
    "first_k_dense_replace": 1,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "routed_scaling_factor": 2.5,
    "max_position_embeddings": 256,
    "pad_token_id": 7,
}

GLM4_MOE = Family(
    name="glm4_moe",
    model_type="glm4_moe",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    beyond=(LAYER,),
    tied=(("head.weight", "embed.weight"),),
    released={
        "glm-4.5-air": _AIR,
        "glm-4.5": _LARGE,
        "glm-4.6": _LARGE | {"max_position_embeddings": 202752},
    },
    test_configs=(
        _TEST,
        _TEST
        | {"attention_bias": False, "use_qk_norm": False, "norm_topk_prob": False}
        | {"n_group": 4, "topk_group": 2, "n_shared_experts": 2}
        | {"partial_rotary_factor": 0.25, "first_k_dense_replace": 0},
    ),
)
