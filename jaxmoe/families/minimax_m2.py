"""MiniMax-M2 (`minimax_m2`): config.json, tensors, released size.

Queries and keys are normed over the whole projection, half of each head is turned, and
experts are scored by sigmoids with a bias of choice that lies beside the router.
"""

from typing import Any

from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.families.attributes import EXPERT_COUNT, POSITIVE, Attributes
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import check_rest, read_common, require, stacked
from jaxmoe.families.common_tensors import (
    BLOCK_EXPERTS,
    BOOKKEEPING,
    FF,
    FRAME,
    LAYER,
    PROJECTION_NORMS,
    PROJECTIONS,
)
from jaxmoe.router.scores import SigmoidScores

ARCHITECTURE = "MiniMaxM2ForCausalLM"
EOS = 200020
IGNORED = {
    "where remote code lies": "auto_map",
    "training only": "router_jitter_noise",
    "layers after the last, which predict further tokens": "use_mtp num_mtp_modules "
    "mtp_transformer_layers",
}


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    width = a.left.get("head_dim", 128)
    turned = a.take("rotary_dim", POSITIVE, width, width)
    part = turned / width if isinstance(width, int) and width else 1.0
    c = read_common(
        a,
        g,
        max_length=196608,
        theta=5e6,
        partial=part,
        head_dim=128,
        kv_heads=8,
        eos=EOS,
    )
    hidden = a.take("intermediate_size", POSITIVE)
    experts = a.take("num_local_experts", EXPERT_COUNT)
    chosen = a.take("num_experts_per_tok", POSITIVE)
    require(
        a,
        scoring_func="sigmoid",
        use_routing_bias=True,
        use_qk_norm=True,
        qk_norm_type="per_layer",
        shared_intermediate_size=0,
        attn_type_list=[1] * c.num_layers,
    )
    check_rest(a, "minimax_m2", ARCHITECTURE, ignored=IGNORED)
    scoring = SigmoidScores(weight_type="float32", choice_bias=True)
    moe = MoEConfig(experts, chosen, hidden, scoring)
    mixer = c.attention(qk_norm="projection")
    return c.model("minimax_m2", stacked([mixer] * c.num_layers, 0, 0, moe))


CHOICE_BIAS = LAYER + "block_sparse_moe.e_score_correction_bias"

TENSORS = (
    *FRAME,
    *PROJECTIONS,
    *PROJECTION_NORMS,
    *BLOCK_EXPERTS,
    TensorRule(CHOICE_BIAS, FF + "router.choice_bias"),
)

_RELEASED: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "minimax_m2",
    "eos_token_id": EOS,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "max_position_embeddings": 196608,
    "num_attention_heads": 48,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 62,
    "num_key_value_heads": 8,
    "num_local_experts": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 5000000,
    "rotary_dim": 64,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "use_qk_norm": True,
    "use_routing_bias": True,
    "vocab_size": 200064,
}

_TEST = {
    "architectures": [ARCHITECTURE],
    "model_type": "minimax_m2",
    "vocab_size": 97,
    "hidden_size": 64,
    "head_dim": 16,
    "rotary_dim": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "num_local_experts": 16,
    "num_experts_per_tok": 4,
    "max_position_embeddings": 256,
    "eos_token_id": 7,
}

MINIMAX_M2 = Family(
    name="minimax_m2",
    model_type="minimax_m2",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    beyond=(LAYER,),
    tied=(("head.weight", "embed.weight"),),
    formats=("FP8",),
    released={"minimax-m2": _RELEASED},
    test_configs=(
        _TEST,
        _TEST
        | {
            "intermediate_size": 40,
            "quantization_config": {
                "activation_scheme": "dynamic",
                "fmt": "float8_e4m3fn",
                "ignored_layers": ["gate", "e_score_correction_bias", "lm_head"],
                "quant_method": "fp8",
                "weight_block_size": [16, 16],
            },
        },
    ),
)
